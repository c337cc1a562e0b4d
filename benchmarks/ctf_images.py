"""Micrographs of known CTF for `ctf.py`, as MRC files: white matter made here, and whole scenes."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emflow.ctf import ctf_2d, spatial_frequencies
from emflow.io.mrc import read_mrc, write_mrc
from emflow.metadata import Ctf, OpticsGroup
from emflow.simulation import ParticleLibrary, SimulationRanges, draw_scene

KINDS = (
    "ice, 0.5-3 um",
    "carbon, 0.5-3 um",
    "near focus, 0.35-0.7 um",
    "weak, 0.5-3 um",
    "no rings",
)
SCENES = "emflow.simulation"


@dataclass(frozen=True)
class Case:
    """A micrograph, its microscope and its truth."""

    path: Path
    optics: OpticsGroup
    ctf: Ctf | None  # None: there is none to be found

    def image(self) -> NDArray[np.float32]:
        """Read it, (h, w)."""
        return read_mrc(self.path)


def cases(work: Path, kind: str, *, count: int, side: int, seed: int) -> list[Case]:
    """Return micrographs of a kind; scenes, from ``seed`` on, are taken from the folder if it holds them."""
    if kind != SCENES:
        rng = np.random.default_rng(2026)
        return [_kept(work, f"{kind}_{side}_{number}", _own(kind, rng, side)) for number in range(count)]
    library = ParticleLibrary("train", procedural=12)
    found = []
    for number in range(seed, seed + count):
        name = f"scene_{side}_{number}"
        if (work / f"{name}.json").is_file():
            found.append(_read(work, name))
        else:
            found.append(_kept(work, name, _scene(library, number, side)))
    return found


Drawn = tuple[NDArray[np.float32], OpticsGroup, Ctf | None]


def white_matter(
    rng: np.random.Generator,
    side: int,
    *,
    defocus: tuple[float, float],
    signal: tuple[float, float],
    carbon: bool = False,
) -> Drawn:
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
    return (40 + 6 * image).astype(np.float32), optics, ctf


def _own(kind: str, rng: np.random.Generator, side: int) -> Drawn:
    if kind.startswith("ice"):
        return white_matter(rng, side, defocus=(5000, 30000), signal=(0.05, 1))
    if kind.startswith("carbon"):
        return white_matter(rng, side, defocus=(5000, 30000), signal=(0.2, 3), carbon=True)
    if kind.startswith("weak"):
        return white_matter(rng, side, defocus=(5000, 30000), signal=(0.005, 0.05))
    if kind.startswith("near focus"):
        return white_matter(rng, side, defocus=(3500, 7000), signal=(0.05, 1))
    image, optics, _ = white_matter(rng, side, defocus=(5000, 30000), signal=(1e-9, 1e-8))
    return image, optics, None


def _scene(library: ParticleLibrary, seed: int, side: int) -> Drawn:
    """Draw a whole scene; its pixel size is the seed's as well."""
    ranges = SimulationRanges(
        defocus_angstrom=(5000.0, 30000.0),
        astigmatism_angstrom=(0.0, 1200.0),
        phase_plate_probability=0.0,
        dose_electrons_per_square_angstrom=(20.0, 60.0),
    )
    scene = draw_scene(
        seed,
        shape=(side, side),
        library=library,
        ranges=ranges,
        pixel_size_angstrom=float(np.random.default_rng([7, seed]).uniform(0.6, 1.7)),
    )
    return scene.image, scene.optics, scene.ctf


def _kept(work: Path, name: str, drawn: Drawn) -> Case:
    image, optics, ctf = drawn
    write_mrc(work / f"{name}.mrc", image, optics.pixel_size_angstrom)
    truth = {"optics": asdict(optics), "ctf": None if ctf is None else asdict(ctf)}
    (work / f"{name}.json").write_text(json.dumps(truth))
    return _read(work, name)


def _read(work: Path, name: str) -> Case:
    truth = json.loads((work / f"{name}.json").read_text())
    ctf = truth["ctf"]
    return Case(work / f"{name}.mrc", OpticsGroup(**truth["optics"]), None if ctf is None else Ctf(**ctf))
