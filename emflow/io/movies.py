"""Movies and gain references: MRC, TIFF and EER, rows as RELION sees them.

The one rule of orientation: the first row of every array is y = 0 of the picture that relion_run_motioncorr
writes from the same file. MRC rows stand as in the file; TIFF rows are turned over (RELION's rwTIFF.h, to
agree with IMOD and SerialEM); EER rows stand as in the file, and so do those of a ``.gain`` file, a TIFF
that belongs to them (RELION's renderEER.h).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from emflow.errors import BadInputError

MRC_SUFFIXES = (".mrc", ".mrcs", ".st")
TIFF_SUFFIXES = (".tif", ".tiff")
EER_SUFFIXES = (".eer",)
GAIN_SUFFIX = ".gain"

_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_PACKED = 101  # two pixels of four bits a byte
_HEADER_BYTES = 1024
_EER_COMPRESSIONS = (65000, 65001, 65002)


class Movie(Protocol):
    """An open movie: ``frames`` frames of ``shape`` (h, w), each read when asked for."""

    frames: int
    shape: tuple[int, int]
    # In its header; None where that does not say
    pixel_size_angstrom: float | None

    def read(self, frame: int) -> NDArray[np.generic]:
        """Return a frame (h, w) in its own type, rows as RELION sees them."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def is_eer(path: Path) -> bool:
    """Whether the file's name says EER."""
    return path.suffix.lower() in EER_SUFFIXES


def is_movie(path: Path) -> bool:
    """Whether the file's name is one that a movie may have."""
    return path.suffix.lower() in (*MRC_SUFFIXES, *TIFF_SUFFIXES, *EER_SUFFIXES)


@contextmanager
def open_movie(path: Path, *, eer_grouping: int = 1, eer_upsampling: int = 1) -> Iterator[Movie]:
    """Open a movie by the suffix of its name.

    Parameters
    ----------
    eer_grouping
        How many raw EER frames make one; frames at the end that fill no group are dropped, as RELION does.
    eer_upsampling
        1 for the detector's own pixels, 2 for half pixels.

    Raises
    ------
    BadInputError
        If the file is none of MRC, TIFF and EER, is truncated, or holds a single frame.
    """
    suffix = path.suffix.lower()
    movie: Movie
    if suffix in MRC_SUFFIXES:
        movie = _MrcMovie(path)
    elif suffix in TIFF_SUFFIXES:
        movie = _TiffMovie(path)
    elif suffix in EER_SUFFIXES:
        movie = _EerMovie(path, eer_grouping, eer_upsampling)
    else:
        raise BadInputError(f"is neither MRC, TIFF nor EER by its name (*{path.suffix})")
    try:
        if movie.frames < 2:
            raise BadInputError(
                f"holds {movie.frames} frame: a movie has at least two; give sums as micrographs instead"
            )
        yield movie
    finally:
        movie.close()


@dataclass(frozen=True)
class _MrcLayout:
    frames: int
    shape: tuple[int, int]
    mode: int
    order: str
    offset: int
    pixel_size_angstrom: float | None

    @property
    def frame_bytes(self) -> int:
        pixels = math.prod(self.shape)
        return pixels // 2 if self.mode == _PACKED else pixels * np.dtype(_TYPES[self.mode]).itemsize


def _mrc_layout(path: Path) -> _MrcLayout:
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
    layout = _MrcLayout(
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


class _MrcMovie:
    def __init__(self, path: Path) -> None:
        self._layout = _mrc_layout(path)
        self.frames, self.shape = self._layout.frames, self._layout.shape
        self.pixel_size_angstrom = self._layout.pixel_size_angstrom
        self._stream = path.open("rb")

    def read(self, frame: int) -> NDArray[np.generic]:
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
        self._stream.close()


class _TiffPages:
    """Pages of a TIFF file, checked to be all there; decoded one by one."""

    def __init__(self, path: Path, **options: int) -> None:
        try:
            self._file = tifffile.TiffFile(path, **options)
        except (tifffile.TiffFileError, OSError, ValueError) as error:
            raise BadInputError(f"is no readable TIFF file: {error}") from None
        try:
            self.pages = list(self._file.pages)
            size = path.stat().st_size
            for number, page in enumerate(self.pages):
                end = max(
                    (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0
                )
                if end > size:
                    raise BadInputError(
                        f"is truncated: {size} bytes, and page {number + 1} of {len(self.pages)} reaches to "
                        f"{end}"
                    )
        except BadInputError:
            self.close()
            raise
        except Exception as error:  # a broken directory raises what it likes
            self.close()
            raise BadInputError(f"is truncated or damaged: {error}") from None

    def decode(self, number: int) -> NDArray[np.generic]:
        try:
            image: NDArray[np.generic] = self.pages[number].asarray()
        except Exception as error:  # decoders raise what they like
            raise BadInputError(f"page {number + 1} cannot be decoded: {error}") from None
        return image

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "_TiffPages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _TiffMovie:
    def __init__(self, path: Path) -> None:
        self._pages = _TiffPages(path)
        shapes = {page.shape for page in self._pages.pages}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
            self.close()
            raise BadInputError("is no movie: its pages differ in size or hold colours")
        self.frames, self.shape = len(self._pages.pages), (int(shape[0]), int(shape[1]))
        # TIFF states none that could be relied on
        self.pixel_size_angstrom: float | None = None

    def read(self, frame: int) -> NDArray[np.generic]:
        return self._pages.decode(frame)[::-1]

    def close(self) -> None:
        self._pages.close()


class _EerMovie:
    def __init__(self, path: Path, grouping: int, upsampling: int) -> None:
        if grouping < 1 or upsampling not in (1, 2):
            raise ValueError(f"EER grouping {grouping}, upsampling {upsampling}")
        self._pages = _TiffPages(path, superres=upsampling - 1)
        # Some files begin with a sum, uncompressed.
        self._raw = [
            number
            for number, page in enumerate(self._pages.pages)
            if int(page.compression) in _EER_COMPRESSIONS
        ]
        if not self._raw:
            self.close()
            raise BadInputError("is no EER file: none of its pages holds electron events")
        shape = self._pages.pages[self._raw[0]].shape
        self.raw_frames = len(self._raw)
        self._grouping = grouping
        self.frames, self.shape = len(self._raw) // grouping, (int(shape[-2]), int(shape[-1]))
        self.pixel_size_angstrom: float | None = None

    def read(self, frame: int) -> NDArray[np.generic]:
        total = np.zeros(self.shape, dtype=np.uint16)
        for raw in self._raw[frame * self._grouping : (frame + 1) * self._grouping]:
            total += self._pages.decode(raw).reshape(self.shape).astype(np.uint16)
        return total

    def close(self) -> None:
        self._pages.close()


def eer_grouping(raw_frames: int, exposure_electrons_per_square_angstrom: float, wanted: float) -> int:
    """Return how many raw EER frames to group for fractions of ``wanted`` electrons per square angstrom.

    ``exposure_electrons_per_square_angstrom`` is that of all frames together.
    """
    return max(1, min(raw_frames // 2, round(wanted * raw_frames / exposure_electrons_per_square_angstrom)))


def count_eer_frames(path: Path) -> int:
    """Return how many raw frames an EER file has.

    Raises
    ------
    BadInputError
        If it is no EER file, or truncated.
    """
    with open_movie(path) as movie:
        return movie.frames


def read_gain(path: Path, *, rotate_quarter_turns: int = 0, flip: str = "none") -> NDArray[np.float32]:
    """Read a gain reference (h, w): what a movie's frames are multiplied by, 0 where a pixel is dead.

    Parameters
    ----------
    rotate_quarter_turns, flip
        As relion_run_motioncorr's ``--gain_rot`` (clockwise as RELION displays it) and ``--gain_flip``
        ("none", "upside_down" or "left_right"); the turn comes first.

    Raises
    ------
    BadInputError
        If the file cannot be read, holds several images, or no pixel that is neither 0 nor infinite.
    """
    suffix = path.suffix.lower()
    if suffix in MRC_SUFFIXES:
        layout = _mrc_layout(path)
        if layout.frames != 1:
            raise BadInputError(f"is no gain reference: it holds {layout.frames} images")
        movie = _MrcMovie(path)
        try:
            gain = np.array(movie.read(0), dtype=np.float32)
        finally:
            movie.close()
    elif suffix in (*TIFF_SUFFIXES, GAIN_SUFFIX):
        with _TiffPages(path) as pages:
            if len(pages.pages) != 1:
                raise BadInputError(f"is no gain reference: it holds {len(pages.pages)} images")
            gain = np.array(pages.decode(0), dtype=np.float32)
        if gain.ndim != 2:
            raise BadInputError(f"is no gain reference: its shape is {gain.shape}")
        if suffix != GAIN_SUFFIX:
            gain = gain[::-1]
    else:
        raise BadInputError(f"is neither MRC, TIFF nor .gain by its name (*{path.suffix}); convert it to MRC")
    gain = turn_gain(gain, rotate_quarter_turns, flip)
    usable = np.isfinite(gain) & (gain > 0)
    if not usable.any():
        raise BadInputError("is no gain reference: none of its pixels is above nought")
    gain[~usable] = 0
    return gain


def turn_gain(gain: NDArray[np.float32], quarter_turns: int, flip: str) -> NDArray[np.float32]:
    """Turn an image by quarter turns clockwise (rows downwards), then flip it.

    Raises
    ------
    ValueError
        If ``flip`` is none of "none", "upside_down", "left_right".
    """
    turned = np.rot90(gain, -quarter_turns)
    if flip == "upside_down":
        turned = turned[::-1]
    elif flip == "left_right":
        turned = turned[:, ::-1]
    elif flip != "none":
        raise ValueError(f"flip {flip!r}")
    return np.ascontiguousarray(turned)


def fit_eer_gain(
    gain: NDArray[np.float32], shape: tuple[int, int], *, multiplies: bool
) -> NDArray[np.float32]:
    """Bring the gain of an EER movie to its frames' shape (h, w), and to what multiplies them.

    A gain of half or twice the size is repeated or averaged. Where it does not multiply (any file but
    ``.gain``), it is a picture of the beam: frames are divided by it, relative to its mean.
    """
    if gain.shape[0] * 2 == shape[0] and gain.shape[1] * 2 == shape[1]:
        gain = np.repeat(np.repeat(gain, 2, axis=0), 2, axis=1)
    elif gain.shape[0] == shape[0] * 2 and gain.shape[1] == shape[1] * 2:
        gain = gain.reshape(shape[0], 2, shape[1], 2).mean((1, 3))
    if not multiplies:
        mean = float(gain[gain > 0].mean())
        gain = np.divide(np.float32(mean), gain, out=np.zeros_like(gain), where=gain > 0)
    return gain


def check_gain(gain: NDArray[np.float32], shape: tuple[int, int]) -> None:
    """Make sure that a gain reference is of the frames' shape (h, w).

    Raises
    ------
    BadInputError
        If it is not; says whether a quarter turn would mend it.
    """
    if gain.shape == shape:
        return
    hint = "; a quarter turn would fit" if gain.shape == shape[::-1] else ""
    raise BadInputError(
        f"has frames of {shape[1]} x {shape[0]} pixels, the gain reference {gain.shape[1]} x "
        f"{gain.shape[0]}{hint}"
    )


def read_defects(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a map of bad pixels, bool (h, w): an image that is not 0 there, or lines of ``x y width height``.

    Raises
    ------
    BadInputError
        If the file is neither, or of another size.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        bad = np.zeros(shape, dtype=bool)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                x, y, width, height = (int(value) for value in line.split())
            except ValueError:
                raise BadInputError(f"line {number} is not `x y width height` of a bad region") from None
            bad[max(y, 0) : y + height, max(x, 0) : x + width] = True
        return bad
    if suffix in MRC_SUFFIXES:
        movie: _MrcMovie | _TiffPages = _MrcMovie(path)
        image = np.asarray(movie.read(0)) if isinstance(movie, _MrcMovie) else np.zeros((0, 0))
    elif suffix in TIFF_SUFFIXES:
        movie = _TiffPages(path)
        image = movie.decode(0)[::-1]
    else:
        raise BadInputError(f"is neither MRC, TIFF nor text by its name (*{path.suffix})")
    movie.close()
    if image.shape != shape:
        raise BadInputError(f"is a map of {image.shape}, the frames are {shape} (height, width)")
    return np.asarray(image != 0)
