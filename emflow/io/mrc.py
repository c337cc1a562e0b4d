"""MRC micrographs: headers, pixels, and writing; row 0 of the array is the first row in the file."""

from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.files import replacing
from emflow.io.mrc_raw_header import HEADER_BYTES, read_raw_mrc_header

# Mode -> bytes per pixel. Mode 101 packs two pixels a byte and belongs to movies.
_BYTES = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}


@dataclass(frozen=True)
class MrcHeader:
    """What a micrograph's header says; a pixel size, voltage or Cs it does not state is None."""

    height: int
    width: int
    mode: int
    pixel_size_angstrom: float | None
    voltage_kilovolt: float | None = None
    spherical_aberration_millimetre: float | None = None


def read_mrc_header(path: Path) -> MrcHeader:
    """Read and check the header of a micrograph, and that the file is as long as it says.

    Raises
    ------
    BadInputError
        If the file is no MRC, has another mode than 0, 1, 2, 6, 12, holds a stack, or is truncated.
    """
    raw = read_raw_mrc_header(path)
    width, height, mode = raw.width, raw.height, raw.mode
    if not raw.has_stamp and not (0 < width < 65536 and 0 < height < 65536 and 0 <= mode <= 101):
        raise BadInputError("is no MRC file: its header holds neither the MAP stamp nor plausible sizes")
    if mode not in _BYTES:
        raise BadInputError(
            f"has MRC mode {mode}; micrographs are read in modes {', '.join(map(str, _BYTES))}"
        )
    if width < 2 or height < 2 or raw.sections != 1:
        raise BadInputError(f"is no micrograph: {width} x {height} pixels, {raw.sections} sections")
    expected = HEADER_BYTES + raw.extended_bytes + height * width * _BYTES[mode]
    if raw.file_bytes < expected:
        raise BadInputError(f"is truncated: {raw.file_bytes} bytes, its header promises {expected}")
    voltage, cs = _fei_optics(path, raw.extended_type)
    return MrcHeader(height, width, mode, raw.pixel_size_angstrom, voltage, cs)


def _fei_optics(path: Path, extended_type: bytes) -> tuple[float | None, float | None]:
    """Return voltage (kV) and Cs (mm) from an FEI1 or FEI2 extended header."""
    if extended_type not in (b"FEI1", b"FEI2"):
        return None, None
    try:
        with mrcfile.open(path, header_only=True, permissive=True) as mrc:
            record = mrc.indexed_extended_header[0]
            voltage = float(record["HT"]) / 1000  # FEI writes volts
            cs = float(record["Cs"]) if "Cs" in (record.dtype.names or ()) else 0.0
    except (AttributeError, ValueError, IndexError, KeyError, TypeError):
        return None, None
    return voltage or None, cs or None


def read_mrc(path: Path, header: MrcHeader | None = None) -> NDArray[np.float32]:
    """Read a micrograph's pixels as float32, shape (height, width).

    Parameters
    ----------
    header
        What `read_mrc_header` returned of this file, where that was read before.

    Raises
    ------
    BadInputError
        As `read_mrc_header`, and if a pixel is NaN or infinite or all are equal.
    """
    if header is None:
        header = read_mrc_header(path)
    try:
        # The library would read the pixels into bytes first, which takes five times as long.
        with mrcfile.open(path, header_only=True, permissive=True) as mrc:
            kind = mrcfile.utils.data_dtype_from_header(mrc.header)
            begin = HEADER_BYTES + int(mrc.header.nsymbt)
        pixels = np.fromfile(path, kind, count=header.height * header.width, offset=begin)
        image = np.asarray(pixels.reshape(header.height, header.width), dtype=np.float32)
    except (ValueError, OSError, TypeError) as error:
        raise BadInputError(f"cannot be read: {error}") from None
    check_pixels(image)
    return image


def check_pixels(image: NDArray[np.float32]) -> None:
    """Refuse an image that holds nothing.

    Raises
    ------
    BadInputError
        If pixels are NaN or infinite, or all are equal.
    """
    least, most = image.min(), image.max()  # either is what is not finite, if anything is
    if not (np.isfinite(least) and np.isfinite(most)):
        bad = image.size - int(np.count_nonzero(np.isfinite(image)))
        raise BadInputError(f"has {bad} pixels that are NaN or infinite")
    if least == most:
        raise BadInputError(f"is constant: every pixel is {float(image.flat[0]):g}")


def write_mrc(path: Path, image: NDArray[np.generic], pixel_size_angstrom: float) -> None:
    """Write an image (height, width) in its own type's mode, whole or not at all."""
    with replacing(path) as partial, mrcfile.new(partial, data=image) as mrc:
        mrc.voxel_size = pixel_size_angstrom
        # The label that the library writes holds the date: equal input must give equal files.
        mrc.header.label[0] = "Written by emflow"
