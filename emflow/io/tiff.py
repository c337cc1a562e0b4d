"""TIFF micrographs, turned as RELION turns them: the first row of the array is the last of the file."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.mrc import MrcHeader


def _first_page(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        raise BadInputError(f"is no readable TIFF file: {error}") from None


def read_tiff_header(path: Path) -> MrcHeader:
    """Read the size of a single-page greyscale TIFF; it states no pixel size that could be relied on.

    Raises
    ------
    BadInputError
        If the file is no TIFF, has several pages or colours, or is truncated.
    """
    with _first_page(path) as tiff:
        page = tiff.pages[0]
        if len(tiff.pages) != 1 or len(page.shape) != 2:
            raise BadInputError(f"is no micrograph: {len(tiff.pages)} pages of shape {page.shape}")
        size = path.stat().st_size
        end = max(
            (offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)),
            default=0,
        )
        if end > size:
            raise BadInputError(f"is truncated: {size} bytes, its pages reach to {end}")
        return MrcHeader(page.shape[0], page.shape[1], 2, None)


def read_tiff(path: Path) -> NDArray[np.generic]:
    """Read a micrograph's pixels in their own type, shape (height, width), rows as RELION sees them.

    RELION reads TIFF y-flipped with respect to MRC (its rwTIFF.h), to agree with IMOD and SerialEM.

    Raises
    ------
    BadInputError
        As `read_tiff_header`, and if the pixels cannot be decoded.
    """
    read_tiff_header(path)
    try:
        image = tifffile.imread(path)
    except Exception as error:  # decoders raise what they like
        raise BadInputError(f"cannot be decoded: {error}") from None
    return np.ascontiguousarray(image[::-1])
