"""The power spectrum of a movie for CTF fits: a square MRC of amplitudes beside its micrograph."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emflow.errors import BadInputError
from emflow.io.mrc import read_mrc, read_mrc_header, write_mrc

if TYPE_CHECKING:
    from emflow.ctf_estimation import PowerSpectrum


def movie_spectrum_path(micrograph: Path) -> Path:
    """Return where the spectrum lies of the movie that a micrograph was made of."""
    return micrograph.with_name(f"{micrograph.stem}_PS.mrc")


def write_movie_spectrum(path: Path, spectrum: "PowerSpectrum") -> None:
    """Write the amplitudes as RELION's ``--grouping_for_ps`` does, for its own reader CTFFIND and for ours.

    Float32 (n, n), n = 2 r + 2, zero frequency at pixel (n/2, n/2), rows along y as in the micrograph. The
    header's pixel size is that of an image of n pixels that has such a spectrum: a pixel of the spectrum
    is 1 / (n pixel sizes) wide.
    """
    radius = spectrum.radius
    side = 2 * radius + 2
    amplitude = np.sqrt(spectrum.power)
    image = np.empty((side, side), dtype=np.float32)
    image[1:, radius + 1 :] = amplitude
    # A spectrum of real pixels is the same half a turn on.
    image[1:, 1 : radius + 1] = amplitude[::-1, :0:-1]
    image[0], image[:, 0] = image[1], image[:, 1]  # the outermost frequency stands once: as its neighbour
    write_mrc(path, image, 1 / (spectrum.frequency_step * side))


def read_movie_spectrum(path: Path) -> "tuple[PowerSpectrum, float]":
    """Read what `write_movie_spectrum` or RELION wrote: the spectrum, and its pixel size in angstrom.

    Raises
    ------
    BadInputError
        If the file is absent or damaged, not square, or states no pixel size.
    """
    from emflow.ctf_estimation import PowerSpectrum  # torch takes seconds

    header = read_mrc_header(path)
    amplitude = read_mrc(path, header)
    side = amplitude.shape[0]
    if amplitude.shape != (side, side) or side % 2:
        raise BadInputError(f"is no spectrum: {header.width} x {header.height} pixels, not an even square")
    if not header.pixel_size_angstrom:
        raise BadInputError("states no pixel size")
    step = 1 / (side * header.pixel_size_angstrom)
    return PowerSpectrum(np.square(amplitude[1:, side // 2 :]), step, 1), header.pixel_size_angstrom
