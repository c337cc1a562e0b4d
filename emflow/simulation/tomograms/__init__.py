"""Tomograms with known truth: a specimen in ice, its tilt series, and what is reconstructed of it."""

from emflow.simulation.tomograms.ranges import TomogramRanges
from emflow.simulation.tomograms.simulate import SimulatedTomogram, simulate_tomogram
from emflow.simulation.tomograms.specimen import Particle, Specimen, draw_specimen
from emflow.simulation.tomograms.tilts import SimulatedTiltSeries, record_tilt_series

__all__ = [
    "Particle",
    "SimulatedTiltSeries",
    "SimulatedTomogram",
    "Specimen",
    "TomogramRanges",
    "draw_specimen",
    "record_tilt_series",
    "simulate_tomogram",
]
