"""Made-up ribosomes: two rough lobes of protein and RNA, 2.3 to 4.3 megadalton.

They are not atomic models: those of ribosomes are for judging, and nothing that is judged was learned from.
"""

import numpy as np
from numpy.typing import NDArray

from emflow.simulation.ranges import uniform
from emflow.simulation.shapes import Structure, centred_structure

Points = NDArray[np.float64]

_SPACING_ANGSTROM = 9.0
_PROTEIN_VOLT, _NUCLEIC_ACID_VOLT = 2.6, 4.0


def ribosome_like(rng: np.random.Generator) -> Structure:
    """Draw one: a round large subunit with a few protuberances, a longer and flatter small one beside it."""
    large = uniform(rng, (98.0, 125.0))
    axis = np.arange(-200, 201, _SPACING_ANGSTROM)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([z, y, x], axis=-1).reshape(-1, 3)

    def lobe(centre: Points, semi: Points, roughness: float) -> NDArray[np.bool_]:
        offset = (points - centre) / semi
        distance = np.linalg.norm(offset, axis=1)
        direction = offset / np.maximum(distance, 1e-6)[:, None]
        bumps = np.zeros(len(points))
        for _ in range(14):
            towards = rng.standard_normal(3)
            towards /= np.linalg.norm(towards)
            bumps += rng.normal(0, roughness) * np.exp(12 * (direction @ towards - 1))
        inside: NDArray[np.bool_] = distance < 1 + bumps
        return inside

    inside = lobe(np.zeros(3), large * rng.uniform(0.88, 1.1, 3), 0.16)
    gap = large * uniform(rng, (0.95, 1.1))
    small = large * np.array([uniform(rng, (0.5, 0.6)), uniform(rng, (1.0, 1.2)), uniform(rng, (0.6, 0.75))])
    inside |= lobe(np.array([gap, 0.0, uniform(rng, (-20, 20))]), small, 0.18)
    body = points[inside]
    # RNA in the core, protein outside, and cracks between: a smooth random texture.
    texture = np.zeros(len(body))
    for _ in range(24):
        wave = rng.normal(0, 1 / 28.0, 3)
        texture += np.cos(body @ wave + rng.random() * 6.3)
    volts = np.where(texture > 0.5, _NUCLEIC_ACID_VOLT, _PROTEIN_VOLT) * np.where(texture < -5.0, 0.2, 1.0)
    positions = body + rng.uniform(-0.5, 0.5, body.shape) * _SPACING_ANGSTROM
    weights = volts * _SPACING_ANGSTROM**3
    return centred_structure(
        "ribosome", positions, weights, _SPACING_ANGSTROM / np.sqrt(12), rescalable=False
    )
