"""What lies on a grid besides particles: drawn as numbers, laid on a canvas of any device, marked as junk."""

from collections.abc import Callable

import numpy as np

from emflow.simulation.contaminants.base import Contaminant, FieldOfView, Layers, junk_at, taken_at
from emflow.simulation.contaminants.films import (
    carbon_radian,
    draw_beads,
    draw_beam_edge,
    draw_carbon,
    draw_crack,
    draw_foil,
)
from emflow.simulation.contaminants.ice import draw_ethane, draw_ice_crystals
from emflow.simulation_ranges import SimulationRanges

__all__ = [
    "Contaminant",
    "FieldOfView",
    "Layers",
    "carbon_radian",
    "draw_contaminants",
    "junk_at",
    "kinds",
    "taken_at",
]

Draw = Callable[[np.random.Generator, SimulationRanges, FieldOfView], list[Contaminant]]


def kinds(ranges: SimulationRanges) -> tuple[tuple[float, Draw], ...]:
    """Return each kind of contaminant with its probability, in the order in which they are laid down."""
    return (
        (ranges.carbon_probability, draw_carbon),
        (ranges.foil_probability, draw_foil),
        (ranges.crack_probability, draw_crack),
        (ranges.ethane_probability, draw_ethane),
        (ranges.bead_probability, draw_beads),
        (ranges.ice_crystal_probability, draw_ice_crystals),
        (ranges.beam_edge_probability, draw_beam_edge),
    )


def draw_contaminants(
    rng: np.random.Generator, ranges: SimulationRanges, view: FieldOfView
) -> tuple[Contaminant, ...]:
    """Draw all that lies on a grid besides particles."""
    return tuple(
        one
        for probability, draw in kinds(ranges)
        if rng.random() < probability
        for one in draw(rng, ranges, view)
    )
