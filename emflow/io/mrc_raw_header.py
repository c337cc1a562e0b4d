"""The fields of an MRC header that micrographs and movies share, as they stand in the file."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emflow.errors import BadInputError

HEADER_BYTES = 1024


@dataclass(frozen=True)
class RawMrcHeader:
    """A header's sizes and types, not yet judged.

    ``order`` is numpy's sign of the byte order, ``has_stamp`` whether the letters MAP stand in their place,
    ``extended_bytes`` and ``extended_type`` tell of the extended header; ``file_bytes`` is the file's length.
    The pixel size is None where the header does not know it.
    """

    order: str
    width: int
    height: int
    sections: int
    mode: int
    has_stamp: bool
    extended_bytes: int
    extended_type: bytes
    pixel_size_angstrom: float | None
    file_bytes: int


def read_raw_mrc_header(path: Path) -> RawMrcHeader:
    """Read a header.

    Raises
    ------
    BadInputError
        If the file cannot be read or is shorter than a header.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            raw = stream.read(HEADER_BYTES)
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror}") from None
    if len(raw) < HEADER_BYTES:
        raise BadInputError(f"is no MRC file: {len(raw)} bytes, and a header alone takes {HEADER_BYTES}")
    # The machine stamp tells the byte order; writers that leave it empty are little-endian today.
    order = ">" if raw[212:214] == b"\x11\x11" else "<"
    width, height, sections, mode = (int(value) for value in np.frombuffer(raw[:16], f"{order}i4"))
    grid, cell = np.frombuffer(raw[28:40], f"{order}i4"), np.frombuffer(raw[40:52], f"{order}f4")
    (extended,) = np.frombuffer(raw[92:96], f"{order}i4")
    pixel_size = float(cell[0]) / int(grid[0]) if int(grid[0]) > 0 else 0.0
    # Zero and exactly one are what programs write that do not know.
    known = math.isfinite(pixel_size) and 0.05 < pixel_size < 1000 and pixel_size != 1.0
    return RawMrcHeader(
        order=order,
        width=width,
        height=height,
        sections=sections,
        mode=mode,
        has_stamp=raw[208:211] == b"MAP",
        extended_bytes=max(int(extended), 0),
        extended_type=raw[104:108],
        pixel_size_angstrom=pixel_size if known else None,
        file_bytes=size,
    )
