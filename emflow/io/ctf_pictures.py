"""The picture of a CTF fit: an 8-bit MRC per micrograph, in the folder of its batch."""

from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from emflow.io.mrc import write_mrc


def ctf_folder(batch: Path) -> Path:
    """Return the folder, below the batch's, of what estimate_ctf leaves beside its table."""
    return batch / "ctf"


def ctf_picture_path(batch: Path, name: str) -> Path:
    """Return where the picture of a micrograph's fit lies below the batch's folder."""
    return ctf_folder(batch) / f"{name}.ctf.mrc"


def write_ctf_picture(path: Path, image: NDArray[np.floating], frequency_step: float) -> None:
    """Write a picture (side, side) with values in 0..1, ``frequency_step`` (1/angstrom) a pixel."""
    grey = np.round(image * 254 - 127).astype(np.int8)  # mode 0 is signed
    # The header can only state a length: that of a pixel of the image that has such a spectrum.
    write_mrc(path, grey, 1 / (frequency_step * grey.shape[0]))


def read_ctf_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as grey values 0..254, shape (side, side)."""
    with mrcfile.open(path, permissive=True) as mrc:
        return (np.asarray(mrc.data, dtype=np.int16) + 127).astype(np.uint8)
