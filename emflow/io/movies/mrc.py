"""Movies in MRC files: modes 0 (signed), 1, 2, 6, 12 and 101 (four bits), rows as in the file."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError

_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_PACKED = 101  # two pixels of four bits a byte
_HEADER_BYTES = 1024


@dataclass(frozen=True)
class MrcLayout:
    """Where the frames lie in a file."""

    frames: int
    shape: tuple[int, int]
    mode: int
    order: str
    offset: int
    pixel_size_angstrom: float | None

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        pixels = math.prod(self.shape)
        return pixels // 2 if self.mode == _PACKED else pixels * np.dtype(_TYPES[self.mode]).itemsize


def read_layout(path: Path) -> MrcLayout:
    """Read a stack's header, and make sure that the file is as long as it says.

    Raises
    ------
    BadInputError
        If it is not, or the file is no MRC of a mode that movies have.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            raw = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror}") from None
    if len(raw) < _HEADER_BYTES:
        raise BadInputError(f"is no MRC file: {len(raw)} bytes, and a header alone takes {_HEADER_BYTES}")
    order = ">" if raw[212:214] == b"\x11\x11" else "<"
    width, height, frames, mode = (int(value) for value in np.frombuffer(raw[:16], f"{order}i4"))
    if not (0 < width < 65536 and 0 < height < 65536 and 0 < frames < 1_000_000):
        raise BadInputError("is no MRC file: its header holds no plausible sizes")
    if mode not in (*_TYPES, _PACKED):
        raise BadInputError(f"has MRC mode {mode}; movies are read in modes 0, 1, 2, 6, 12 and 101")
    if mode == _PACKED and width % 2:
        raise BadInputError(f"has MRC mode 101 and rows of {width} pixels; an even number can be unpacked")
    (extended,) = np.frombuffer(raw[92:96], f"{order}i4")
    grid, cell = np.frombuffer(raw[28:40], f"{order}i4"), np.frombuffer(raw[40:52], f"{order}f4")
    pixel_size = float(cell[0]) / int(grid[0]) if int(grid[0]) > 0 else 0.0
    known = math.isfinite(pixel_size) and 0.05 < pixel_size < 1000 and pixel_size != 1.0
    layout = MrcLayout(
        frames,
        (height, width),
        mode,
        order,
        _HEADER_BYTES + max(int(extended), 0),
        pixel_size if known else None,
    )
    expected = layout.offset + frames * layout.frame_bytes
    if size < expected:
        whole = max(0, size - layout.offset) // layout.frame_bytes
        raise BadInputError(
            f"is truncated: {size} bytes, its header promises {expected} ({whole} of {frames} frames are "
            f"whole)"
        )
    return layout


class MrcMovie:
    """An open MRC stack."""

    def __init__(self, path: Path) -> None:
        self._layout = read_layout(path)
        self.frames, self.shape = self._layout.frames, self._layout.shape
        self.pixel_size_angstrom = self._layout.pixel_size_angstrom
        self._stream = path.open("rb")

    def read(self, frame: int) -> NDArray[np.generic]:
        """Return a frame (h, w), rows as in the file."""
        layout = self._layout
        self._stream.seek(layout.offset + frame * layout.frame_bytes)
        raw = self._stream.read(layout.frame_bytes)
        if len(raw) < layout.frame_bytes:
            raise BadInputError(f"is truncated in frame {frame + 1}")
        if layout.mode == _PACKED:
            packed = np.frombuffer(raw, np.uint8)
            # The low half of a byte is the left pixel.
            return np.stack([packed & 15, packed >> 4], -1).reshape(layout.shape)
        return np.frombuffer(raw, layout.order + _TYPES[layout.mode]).reshape(layout.shape)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
