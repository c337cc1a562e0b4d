"""Movies in MRC files: modes 0 (signed), 1, 2, 6, 12 and 101 (four bits), rows as in the file."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.mrc_raw_header import HEADER_BYTES, read_raw_mrc_header

_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_PACKED = 101  # two pixels of four bits a byte


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
    raw = read_raw_mrc_header(path)
    width, height, frames, mode = raw.width, raw.height, raw.sections, raw.mode
    if not (0 < width < 65536 and 0 < height < 65536 and 0 < frames < 1_000_000):
        raise BadInputError("is no MRC file: its header holds no plausible sizes")
    if mode not in (*_TYPES, _PACKED):
        raise BadInputError(f"has MRC mode {mode}; movies are read in modes 0, 1, 2, 6, 12 and 101")
    if mode == _PACKED and width % 2:
        raise BadInputError(f"has MRC mode 101 and rows of {width} pixels; an even number can be unpacked")
    offset = HEADER_BYTES + raw.extended_bytes
    layout = MrcLayout(frames, (height, width), mode, raw.order, offset, raw.pixel_size_angstrom)
    expected = layout.offset + frames * layout.frame_bytes
    if raw.file_bytes < expected:
        whole = max(0, raw.file_bytes - layout.offset) // layout.frame_bytes
        raise BadInputError(
            f"is truncated: {raw.file_bytes} bytes, its header promises {expected} ({whole} of {frames} "
            "frames are whole)"
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
