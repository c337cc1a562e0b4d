"""The simulated tomograms that segmenter and denoiser learn from, and those that they are judged by."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emflow.simulation.library import ParticleLibrary
from emflow.simulation.shapes import Structure
from emflow.simulation.tomograms import SimulatedTomogram, TomogramRanges, simulate_tomogram
from emflow.simulation.tomograms.simulate import REVISION

PIXEL_SIZE_ANGSTROM = 10.0
SHAPE = (120, 192, 192)
RANGES = TomogramRanges(thickness_angstrom=(600.0, 1000.0))
# Ice as thick as most specimens have it, with room for it. Of what is learned from such a share is cut out of
# tomograms like these, at some height.
THICK_SHAPE = (224, 192, 192)
THICK_RANGES = TomogramRanges()
THICK_SHARE = 0.5


@dataclass(frozen=True)
class TrainingTomogram:
    """Halves, the clean tomogram (float16) and labels (uint8) of a simulation, all (z, y, x)."""

    even: NDArray[np.float16]
    odd: NDArray[np.float16]
    clean: NDArray[np.float16]
    labels: NDArray[np.uint8]


Draw = Callable[[tuple[int, int]], TrainingTomogram]


@dataclass(frozen=True)
class TrainingTomograms:
    """Simulates the tomogram of a seed: all of one in thin ice, or some slices of one in thick ice."""

    library: ParticleLibrary
    shape: tuple[int, int, int] = SHAPE

    @property
    def digest(self) -> str:
        """Tells apart what gives another tomogram of the same seed, in hexadecimal."""
        ranges = (RANGES, THICK_RANGES, THICK_SHAPE, THICK_SHARE)
        told = f"{REVISION} {self.library.digest} {self.shape} {ranges}"
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def __call__(self, seed: tuple[int, int]) -> TrainingTomogram:
        """Simulate one."""
        random = np.random.default_rng((*seed, 11))
        number = int(random.integers(2**31))
        thick = random.random() < THICK_SHARE
        shape = (self.shape[0] + THICK_SHAPE[0] - SHAPE[0], *self.shape[1:]) if thick else self.shape
        ranges = THICK_RANGES if thick else RANGES
        simulated = simulate_tomogram(number, shape, ranges=ranges, library=self.library)
        first = int(random.integers(shape[0] - self.shape[0] + 1))
        part = slice(first, first + self.shape[0])
        return TrainingTomogram(
            simulated.even[part].astype(np.float16),
            simulated.odd[part].astype(np.float16),
            simulated.clean[part].astype(np.float16),
            simulated.labels[part],
        )


def held_apart(
    count: int,
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    *,
    ranges: TomogramRanges = RANGES,
    ribosomes: Sequence[Structure] = (),
    complexes: Sequence[Structure] = (),
) -> list[SimulatedTomogram]:
    """Simulate tomograms to judge by: other seeds, and complexes of the held-apart split or those given."""
    library = ParticleLibrary("held_apart", procedural=60)
    seeds = np.random.default_rng((seed, 12)).integers(2**31, size=count)
    return [
        simulate_tomogram(
            int(one), shape, ranges=ranges, library=library, ribosomes=ribosomes, complexes=complexes
        )
        for one in seeds
    ]
