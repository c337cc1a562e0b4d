"""Score and time CTF estimation against known truth: `python benchmarks/ctf.py [--count 40] [--side 2048]`.

Two simulations that share nothing but the formula of the CTF: white matter under an envelope in coloured
noise, made here, and whole scenes of `emflow.simulation` (particles, ice, contaminants, detector). RELION
estimates no CTF itself, so the peer is the truth. With the folder of outside data (EMFLOW_SHARED, else
../shared) the real micrographs there are shown too.
"""

import argparse
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from emflow.ctf import ctf_2d, spatial_frequencies
from emflow.ctf_estimation import CtfEstimate, estimate_ctf, fit_power_spectra, power_spectrum
from emflow.metadata import Ctf, OpticsGroup
from emflow.simulation import ParticleLibrary, SimulationRanges, draw_scene


@dataclass(frozen=True)
class Case:
    """A micrograph and its truth."""

    image: NDArray[np.float32]
    optics: OpticsGroup
    ctf: Ctf | None  # None: there is none to be found


def white_matter(
    rng: np.random.Generator,
    side: int,
    *,
    defocus: tuple[float, float],
    signal: tuple[float, float],
    carbon: bool = False,
) -> Case:
    """Draw a micrograph; ``signal`` is the range of the rings' power over the noise's at 10 angstrom."""
    pixel = rng.uniform(0.6, 1.7)
    optics = OpticsGroup("own", pixel, 300.0 if rng.random() < 0.7 else 200.0, 2.7, 0.07)
    mean, astigmatism = rng.uniform(*defocus), rng.uniform(0, 1500)
    ctf = Ctf(mean + astigmatism / 2, mean - astigmatism / 2, rng.uniform(-90, 90))
    shape = (side, side)
    k_y, k_x = spatial_frequencies(shape, pixel)
    square = k_x**2 + k_y**2
    frequency = np.sqrt(square)
    transfer = ctf_2d(
        shape,
        pixel,
        defocus_u_angstrom=ctf.defocus_u_angstrom,
        defocus_v_angstrom=ctf.defocus_v_angstrom,
        defocus_angle_degrees=ctf.defocus_angle_degrees,
        voltage_kilovolt=optics.voltage_kilovolt,
        spherical_aberration_millimetre=2.7,
        amplitude_contrast=0.07,
    )
    b_factor = rng.uniform(50, 300)
    level = math.exp(rng.uniform(*(math.log(value) for value in signal)))
    matter = np.sqrt(2 * level * np.exp(-b_factor / 2 * (square - 0.01)))
    if not carbon:  # particles: more matter at low resolution
        matter *= np.sqrt(1 + 20 * np.exp(-(60**2) * square))
    transfer *= matter * (1 - 0.5 * frequency / frequency.max())
    if rng.random() < 0.3:
        transfer *= np.sinc(k_x * rng.uniform(1, 4))
    floor = rng.uniform(0.5, 1)
    noise = floor + (1 - floor) * np.exp(-20 * square)
    noise = np.sqrt(noise**2 + rng.uniform(0, 3) * np.exp(-frequency * rng.uniform(20, 80)))
    objects, shots = (scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
    image = scipy.fft.irfft2(objects * transfer + shots * noise, s=shape)
    return Case((40 + 6 * image).astype(np.float32), optics, ctf)


def own(kind: str, count: int, side: int) -> Iterator[Case]:
    rng = np.random.default_rng(2026)
    for _ in range(count):
        if kind == "ice, 0.5-3 um":
            yield white_matter(rng, side, defocus=(5000, 30000), signal=(0.05, 1))
        elif kind == "carbon, 0.5-3 um":
            yield white_matter(rng, side, defocus=(5000, 30000), signal=(0.2, 3), carbon=True)
        elif kind == "weak, 0.5-3 um":
            yield white_matter(rng, side, defocus=(5000, 30000), signal=(0.005, 0.05))
        elif kind == "near focus, 0.35-0.7 um":
            yield white_matter(rng, side, defocus=(3500, 7000), signal=(0.05, 1))
        else:
            case = white_matter(rng, side, defocus=(5000, 30000), signal=(1e-9, 1e-8))
            yield Case(case.image, case.optics, None)


def scenes(count: int, side: int) -> Iterator[Case]:
    library = ParticleLibrary("train", procedural=12)
    ranges = SimulationRanges(
        defocus_angstrom=(5000.0, 30000.0),
        astigmatism_angstrom=(0.0, 1200.0),
        phase_plate_probability=0.0,
        dose_electrons_per_square_angstrom=(20.0, 60.0),
    )
    rng = np.random.default_rng(7)
    for seed in range(count):
        scene = draw_scene(
            seed,
            shape=(side, side),
            library=library,
            ranges=ranges,
            pixel_size_angstrom=float(rng.uniform(0.6, 1.7)),
        )
        yield Case(scene.image, scene.optics, scene.ctf)


def estimate(case: Case) -> tuple[CtfEstimate, float, float]:
    start = time.process_time()
    spectrum = power_spectrum(case.image, pixel_size_angstrom=case.optics.pixel_size_angstrom)
    middle = time.process_time()
    found = fit_power_spectra(
        [spectrum],
        pixel_size_angstrom=case.optics.pixel_size_angstrom,
        voltage_kilovolt=case.optics.voltage_kilovolt,
        spherical_aberration_millimetre=case.optics.spherical_aberration_millimetre,
        amplitude_contrast=case.optics.amplitude_contrast,
    )[0]
    return found, middle - start, time.process_time() - middle


def score(name: str, cases: Iterator[Case]) -> None:
    off, angles, merits, right, resolutions, spent = [], [], [], [], [], []
    for case in cases:
        found, spectrum_seconds, fit_seconds = estimate(case)
        ctf, truth = found.ctf, case.ctf
        merit = ctf.figure_of_merit or 0.0
        merits.append(merit)
        resolutions.append(ctf.max_resolution_angstrom)
        spent.append((spectrum_seconds, fit_seconds))
        if truth is None:
            right.append(False)
            continue
        mean = (truth.defocus_u_angstrom + truth.defocus_v_angstrom) / 2
        error = abs((ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2 - mean)
        off.append(error)
        right.append(error < max(300, 0.05 * mean))
        if truth.defocus_u_angstrom - truth.defocus_v_angstrom > 500 and merit > 0.9:
            turned = (ctf.defocus_angle_degrees - truth.defocus_angle_degrees + 90) % 180 - 90
            angles.append(abs(turned))
    good, trusted = np.array(right), np.array(merits) >= 0.5
    columns = [
        f"{name:24s} {len(merits):5d}",
        f"{np.median(off):8.0f}" if off else f"{'-':>8s}",
        f"{np.median(angles):6.1f} {np.percentile(angles, 90):6.1f}" if angles else f"{'-':>6s} {'-':>6s}",
        f"{100 * np.mean(~good):7.1f}" if off else f"{'-':>7s}",
        f"{100 * np.mean(~good & trusted):9.1f} {100 * np.mean(good & ~trusted):9.1f}",
        f"{np.median(resolutions):6.1f}",
        "{:6.2f} {:6.2f}".format(*np.median(spent, axis=0)),
    ]
    print(" ".join(columns), flush=True)


def timing() -> None:
    rng = np.random.default_rng(1)
    for pixel in (0.6, 0.85, 1.7):
        case = white_matter(rng, 4096, defocus=(10000, 20000), signal=(0.2, 0.3))
        case = Case(case.image, OpticsGroup("own", pixel, 300.0, 2.7, 0.07), case.ctf)
        start = time.perf_counter()
        _, spectrum, fit = estimate(case)
        wall = time.perf_counter() - start
        print(f"4096 x 4096 at {pixel} A: {spectrum:.2f} + {fit:.2f} CPU-seconds, {wall:.2f} s")


def real(shared: Path) -> None:
    folder = shared / "data" / "1_spa_micrographs"
    path = folder / "mrcfile" / "fei-extended.mrc.bz2"
    if path.is_file():
        with mrcfile.open(path, permissive=True) as mrc:
            image = np.array(mrc.data, dtype=np.float32)
        _show("fei-extended (nominal -0.8 um)", image, 0.8538, 2.7)
    for path in sorted(folder.glob("bgal_empiar10017/*.jpg")):
        from PIL import Image

        # Smoothed and compressed: no rings are left beyond 20 angstrom, and the merit must say so.
        _show(path.name, np.asarray(Image.open(path).convert("F")), 1.77, 2.0)


def _show(name: str, image: NDArray[np.float32], pixel: float, cs: float) -> None:
    ctf = estimate_ctf(
        image,
        pixel_size_angstrom=pixel,
        voltage_kilovolt=300.0,
        spherical_aberration_millimetre=cs,
        amplitude_contrast=0.1,
    ).ctf
    print(
        f"{name}: U {ctf.defocus_u_angstrom:.0f} V {ctf.defocus_v_angstrom:.0f} "
        f"angle {ctf.defocus_angle_degrees:.0f}, to {ctf.max_resolution_angstrom:.1f} A, "
        f"merit {ctf.figure_of_merit:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40, help="micrographs of each kind")
    parser.add_argument("--side", type=int, default=2048, help="their side in pixels")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'kind':24s} {'count':>5s} {'|dz| A':>8s} {'angle':>6s} {'90 %':>6s} {'wrong %':>7s} "
        f"{'believed%':>9s} {'doubted %':>9s} {'to A':>6s} {'CPU-s':>6s} {'fit':>6s}"
    )
    kinds = ("ice, 0.5-3 um", "carbon, 0.5-3 um", "near focus, 0.35-0.7 um", "weak, 0.5-3 um", "no rings")
    for kind in kinds:
        score(kind, own(kind, arguments.count, arguments.side))
    score("emflow.simulation", scenes(arguments.count, arguments.side))
    print(
        "|dz|: median error of mean defocus; angle: median and 90 % of those with astigmatism > 500 A and "
        "merit > 0.9; wrong: off by more than 5 % and 300 A; believed: wrong with merit >= 0.5; "
        "doubted: right with less"
    )
    timing()
    beside = Path(__file__).resolve().parents[2] / "shared"
    real(Path(os.environ.get("EMFLOW_SHARED", beside)))


if __name__ == "__main__":
    main()
