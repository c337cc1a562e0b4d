"""Micrographs of either format: which reader a file needs is decided here, by its suffix."""

from pathlib import Path

from emflow.errors import BadInputError
from emflow.io.mrc import MrcHeader, read_mrc_header
from emflow.io.tiff import read_tiff_header

MRC_SUFFIXES = (".mrc",)
TIFF_SUFFIXES = (".tif", ".tiff")


def is_tiff(path: Path) -> bool:
    """Whether the file's name says TIFF."""
    return path.suffix.lower() in TIFF_SUFFIXES


def read_header(path: Path) -> MrcHeader:
    """Read the header of an MRC or TIFF micrograph.

    Raises
    ------
    BadInputError
        If it is neither, or cannot be used as a micrograph.
    """
    if is_tiff(path):
        return read_tiff_header(path)
    if path.suffix.lower() in MRC_SUFFIXES:
        return read_mrc_header(path)
    raise BadInputError(f"is neither MRC nor TIFF by its name (*{path.suffix})")
