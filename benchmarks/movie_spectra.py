"""Which spectrum of a movie tells its defocus: `python benchmarks/movie_spectra.py [--count 8] [--seed 100]`.

Movies of 1024 x 1024 pixels, 32 frames of 1.25 electrons per square angstrom, defocus 0.6 to 3 micrometre,
known. Two kinds hold ice of 300 or 150 angstrom whose molecules move in the beam, beside particles that fade;
they do not move otherwise and are not aligned. The third is `emflow.simulation`'s: particles alone, which
drift; aligned by emflow. Fitted are the exposure-weighted sum, the plain sum, and the mean power of plain
sums of 4 and of 8 electrons per square angstrom; auto is what `estimate_ctf` does.
"""

import argparse
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from emflow.ctf import ctf_2d, interaction_radian_per_volt_angstrom, spatial_frequencies
from emflow.ctf_estimation import PowerSpectrum, fit_power_spectra, power_spectrum
from emflow.metadata import DOUBTFUL_CTF
from emflow.motion import MotionField, correct_frames
from emflow.motion import spectrum as grouping
from emflow.motion.dose import damage_amplitude
from emflow.motion.frames import CleanFrames, motion_of
from emflow.simulation.movies import _specimen, simulate_movie

SIDE, FRAMES, EXPOSURE, VOLTAGE = 1024, 32, 1.25, 300.0
# McMullan et al., Ultramicroscopy 158 (2015) 26, per electron per square angstrom; taken as over three axes.
WATER_SQUARE_ANGSTROM = 1.1
WATER_VOLT_CUBIC_ANGSTROM = 145.0
WATER_PER_CUBIC_ANGSTROM = 0.0314
KINDS = {"150 A of ice": 150.0, "no ice": None, "300 A of ice": 300.0}


@dataclass(frozen=True)
class Fit:
    """A fit of one spectrum: the error of its mean defocus, whether it is right, merit, chi-square, reach."""

    error: float
    right: bool
    merit: float
    gain: float
    resolution: float


def wet_frames(
    rng: np.random.Generator, pixel: float, defocus: tuple[float, float, float], thickness: float
) -> Iterator[Tensor]:
    """Yield frames of particles in ice; ``defocus`` is U, V (angstrom) and the angle (degrees)."""
    shape = (SIDE, SIDE)
    particles, _ = _specimen(rng, shape, pixel, VOLTAGE, 140.0, 0.25, 0.0)
    k_y, k_x = spatial_frequencies(shape, pixel)
    square = (k_x**2 + k_y**2).astype(np.float32)
    frequency = np.sqrt(square)
    # Water's structure factor: low up to 5 angstrom, 1 from its ring at 3.7 on; atoms of B 20.
    structure = 0.07 + 0.93 * np.exp(-0.5 * ((np.minimum(frequency, 1 / 3.7) - 1 / 3.7) / 0.045) ** 2)
    power = WATER_PER_CUBIC_ANGSTROM * thickness * structure * np.exp(-5 * square)
    strength = interaction_radian_per_volt_angstrom(VOLTAGE) * WATER_VOLT_CUBIC_ANGSTROM / pixel
    amplitude = (strength * np.sqrt(power)).astype(np.float32)
    kept = np.exp(-2 * math.pi**2 * square * WATER_SQUARE_ANGSTROM / 3 * EXPOSURE).astype(np.float32)
    transfer = 2 * ctf_2d(
        shape,
        pixel,
        defocus_u_angstrom=defocus[0],
        defocus_v_angstrom=defocus[1],
        defocus_angle_degrees=defocus[2],
        voltage_kilovolt=VOLTAGE,
        spherical_aberration_millimetre=2.7,
        amplitude_contrast=0.1,
        b_factor_square_angstrom=80.0,
    )

    def white() -> NDArray[np.complex64]:
        return np.asarray(scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)))

    ice = white()
    for number in range(FRAMES):
        if number:
            ice = kept * ice + np.sqrt(1 - kept**2) * white()
        faded = particles * damage_amplitude(frequency, (number + 0.5) * EXPOSURE, VOLTAGE)
        contrast = scipy.fft.irfft2(transfer * (faded + amplitude * ice), s=shape)
        expected = EXPOSURE * pixel**2 * (1 + 0.9 * np.tanh(contrast / 0.9))
        yield torch.from_numpy(rng.poisson(np.maximum(expected, 0)).astype(np.float32))


def spectra(frames: Iterable[Tensor], field: MotionField, pixel: float) -> dict[str, PowerSpectrum]:
    """Return what there is to fit, by name."""
    found = {}
    kept = list(frames)
    usual = grouping.EXPOSURE_OF_A_GROUP
    for exposure in (4.0, 8.0):
        grouping.EXPOSURE_OF_A_GROUP = exposure
        result = correct_frames(
            kept,
            field,
            pixel_size_angstrom=pixel,
            exposure_electrons_per_square_angstrom=EXPOSURE,
            voltage_kilovolt=VOLTAGE,
            plain=True,
            power_exposure_electrons_per_square_angstrom=EXPOSURE,
        )
        if result.power is None or result.plain is None:
            raise RuntimeError("nothing was summed")
        found[f"sums of {exposure:g} e"] = result.power
    grouping.EXPOSURE_OF_A_GROUP = usual
    found["weighted sum"] = power_spectrum(result.weighted, pixel_size_angstrom=pixel)
    found["plain sum"] = power_spectrum(result.plain, pixel_size_angstrom=pixel)
    return found


def fit(spectrum: PowerSpectrum, pixel: float, defocus: float) -> Fit:
    found = fit_power_spectra(
        [spectrum],
        pixel_size_angstrom=pixel,
        voltage_kilovolt=VOLTAGE,
        spherical_aberration_millimetre=2.7,
        amplitude_contrast=0.1,
    )[0]
    error = abs((found.ctf.defocus_u_angstrom + found.ctf.defocus_v_angstrom) / 2 - defocus)
    return Fit(
        error,
        error < max(300, 0.05 * defocus),
        found.ctf.figure_of_merit or 0.0,
        found.chi_square_gain,
        found.ctf.max_resolution_angstrom or 30.0,
    )


def one(kind: str, seed: int) -> dict[str, Fit]:
    rng = np.random.default_rng([77, seed])
    pixel, defocus = rng.uniform(0.7, 1.4), rng.uniform(6000, 30000)
    half, angle = rng.uniform(0, 1000) / 2, rng.uniform(-90, 90)
    thickness = KINDS[kind]
    if thickness is None:
        movie = simulate_movie(
            seed,
            shape=(SIDE, SIDE),
            frames=FRAMES,
            pixel_size_angstrom=pixel,
            electrons_per_pixel=EXPOSURE * pixel**2,
            defocus_angstrom=defocus,
            gain_deviation=0,
            dead_columns=0,
            listed_bad_pixels=0,
            unlisted_bad_pixels=0,
        )
        frames: Iterable[Tensor] = CleanFrames(list(movie.frames), None, None, torch.device("cpu"))
        field = motion_of(
            frames,
            pixel_size_angstrom=pixel,
            exposure_electrons_per_square_angstrom=EXPOSURE,
            voltage_kilovolt=VOLTAGE,
        ).field
    else:
        frames = wet_frames(rng, pixel, (defocus + half, defocus - half, angle), thickness)
        field = MotionField.of_shifts((SIDE, SIDE), np.zeros((FRAMES, 2)))
    fits = {}
    for name, spectrum in spectra(frames, field, pixel).items():
        side = SIDE / grouping.cropped_shape((SIDE, SIDE), pixel)[0] if name.startswith("sums") else 1
        fits[name] = fit(spectrum, pixel * side, defocus)
    first, second = fits["sums of 8 e"], fits["weighted sum"]
    fits["auto"] = first if first.merit >= DOUBTFUL_CTF or first.merit >= second.merit else second
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=8, help="movies of each kind")
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| movies | fitted | error, A: median, largest | wrong, % | doubted, % | chi-square | to, A |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        rows = [one(kind, options.seed + number) for number in range(options.count)]
        for name in rows[0]:
            fits = [row[name] for row in rows]
            errors = [each.error for each in fits]
            wrong = 100 * np.mean([not each.right for each in fits])
            doubted = 100 * np.mean([each.right and each.merit < DOUBTFUL_CTF for each in fits])
            print(
                f"| {kind} | {name} | {np.median(errors):.0f}, {max(errors):.0f} "
                f"| {wrong:.0f} | {doubted:.0f} "
                f"| {np.median([each.gain for each in fits]):.0f} "
                f"| {np.median([each.resolution for each in fits]):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
