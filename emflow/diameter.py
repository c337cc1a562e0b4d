"""A guess at the particle's diameter, for those who do not give one: the size at which picks are surest.

At the right diameter a picker tells particles from the rest; at a wrong one it sees parts of them, or
crowds, and hesitates. So it picks at a row of diameters, and the one wins at which the largest share of its
candidates is sure, if they are many enough to count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emflow.model_card import ModelCard
from emflow.networks import UNet
from emflow.picking import pick_micrograph

# 70 to 600 angstrom in steps of 18 %: finer ones tell no more, as the picker bears a wrong quarter.
DIAMETERS_ANGSTROM = tuple(round(70 * 1.18**step) for step in range(14))
SURE = 0.8
CANDIDATE = 0.2
# Fewer sure picks in all, at the best diameter, are no particle's.
FEWEST_SURE = 8


@dataclass(frozen=True)
class DiameterGuess:
    """``diameter_angstrom`` is None where too few picks were sure; ``scores`` has 0..1 for each tried."""

    diameter_angstrom: float | None
    scores: Mapping[float, float]


def sureness(figures_of_merit: NDArray[np.float64]) -> float:
    """Return the share of candidates that are sure, times the logarithm of how many those are."""
    sure = int(np.count_nonzero(figures_of_merit > SURE))
    candidates = int(np.count_nonzero(figures_of_merit > CANDIDATE))
    return sure / max(1, candidates) * float(np.log1p(sure))


def guess_diameter(
    images: Sequence[tuple[NDArray[np.float32], float]], network: UNet, card: ModelCard
) -> DiameterGuess:
    """Guess the diameter of what several micrographs show.

    Parameters
    ----------
    images
        Each as the pipeline stores it, (height, width), with its pixel size in angstrom.
    network, card
        A picker and its card.
    """
    merits: dict[float, list[NDArray[np.float64]]] = {}
    for diameter in DIAMETERS_ANGSTROM:
        for image, pixel_size in images:
            if 4 * pixel_size <= diameter <= min(image.shape) * pixel_size / 3:
                picks = pick_micrograph(
                    image,
                    image_pixel_size_angstrom=pixel_size,
                    unbinned_shape=(image.shape[0], image.shape[1]),
                    diameter_angstrom=diameter,
                    network=network,
                    card=card,
                    floor=CANDIDATE,
                )
                merits.setdefault(diameter, []).append(picks.figure_of_merit)
    scores = {diameter: float(np.mean([*map(sureness, found)])) for diameter, found in merits.items()}
    highest = max(scores.values(), default=0.0)
    if not highest:
        return DiameterGuess(None, scores)
    best = max(scores, key=lambda diameter: scores[diameter])
    sure = sum(int(np.count_nonzero(found > SURE)) for found in merits[best])
    shares = {diameter: score / highest for diameter, score in scores.items()}
    return DiameterGuess(best if sure >= FEWEST_SURE else None, shares)
