"""The simulated tomograms that segmenter and denoiser learn from, and those that they are judged by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emflow.simulation.library import ParticleLibrary
from emflow.simulation.shapes import Structure
from emflow.simulation.tomograms import SimulatedTomogram, TomogramRanges, simulate_tomogram

PIXEL_SIZE_ANGSTROM = 10.0
SHAPE = (120, 192, 192)
RANGES = TomogramRanges(thickness_angstrom=(600.0, 1000.0))


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
    """Simulates the tomogram of a seed."""

    library: ParticleLibrary
    ranges: TomogramRanges = RANGES
    shape: tuple[int, int, int] = SHAPE

    def __call__(self, seed: tuple[int, int]) -> TrainingTomogram:
        """Simulate one."""
        number = int(np.random.default_rng((*seed, 11)).integers(2**31))
        simulated = simulate_tomogram(number, self.shape, ranges=self.ranges, library=self.library)
        return TrainingTomogram(
            simulated.even.astype(np.float16),
            simulated.odd.astype(np.float16),
            simulated.clean.astype(np.float16),
            simulated.labels,
        )


def held_apart(
    count: int,
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    *,
    ribosomes: Sequence[Structure] = (),
    complexes: Sequence[Structure] = (),
) -> list[SimulatedTomogram]:
    """Simulate tomograms to judge by: other seeds, and complexes of the held-apart split or those given."""
    library = ParticleLibrary("held_apart", procedural=60)
    seeds = np.random.default_rng((seed, 12)).integers(2**31, size=count)
    return [
        simulate_tomogram(
            int(one), shape, ranges=RANGES, library=library, ribosomes=ribosomes, complexes=complexes
        )
        for one in seeds
    ]
