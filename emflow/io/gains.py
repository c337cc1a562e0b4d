"""Gain references and maps of bad pixels, rows as RELION sees them (`emflow.io.movies` has the rule)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.movies import GAIN_SUFFIX, MRC_SUFFIXES, TIFF_SUFFIXES
from emflow.io.movies.mrc import MrcMovie, read_layout
from emflow.io.movies.tiff import TiffPages, read_tiff_layout


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
    gain = _read_image(path, (*MRC_SUFFIXES, *TIFF_SUFFIXES, GAIN_SUFFIX), "gain reference").astype(
        np.float32
    )
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
    image = _read_image(path, (*MRC_SUFFIXES, *TIFF_SUFFIXES), "map of bad pixels")
    if image.shape != shape:
        raise BadInputError(
            f"is a map of {image.shape[1]} x {image.shape[0]} pixels, the frames have {shape[1]} x {shape[0]}"
        )
    return np.asarray(image != 0)


def _read_image(path: Path, suffixes: tuple[str, ...], what: str) -> NDArray[np.generic]:
    """Read a file's only image (h, w), rows as RELION sees them."""
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise BadInputError(f"is no {what} by its name (*{path.suffix}); known are {', '.join(suffixes)}")
    if suffix in MRC_SUFFIXES:
        movie = MrcMovie(path)
        try:
            count, image = movie.frames, movie.read(0)
        finally:
            movie.close()
    else:
        with TiffPages(path) as pages:
            count, image = len(pages.pages), pages.decode(0)
        image = image if suffix == GAIN_SUFFIX else image[::-1]
    if count != 1 or image.ndim != 2:
        raise BadInputError(f"is no {what}: it holds {count} images of shape {image.shape}")
    return image


def gain_shape(path: Path, rotate_quarter_turns: int = 0) -> tuple[int, int]:
    """Return (h, w) of a gain reference after its turn, from its header alone.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in MRC_SUFFIXES:
        height, width = read_layout(path).shape
    elif suffix in (*TIFF_SUFFIXES, GAIN_SUFFIX):
        if not path.is_file():
            raise BadInputError("cannot be read: no such file")
        _, height, width = read_tiff_layout(path)
    else:
        raise BadInputError(f"is neither MRC, TIFF nor .gain by its name (*{path.suffix}); convert it to MRC")
    return (width, height) if rotate_quarter_turns % 2 else (height, width)


def gain_fits(gain: tuple[int, int], frame: tuple[int, int], *, eer: bool) -> bool:
    """Whether a gain of a shape (h, w) serves frames of a shape: EER also takes half and double."""
    factors = (1.0, 0.5, 2.0) if eer else (1.0,)
    return any(gain[0] == frame[0] * factor and gain[1] == frame[1] * factor for factor in factors)
