"""A physical simulator of cryo-EM micrographs with known truth: what trains and tests emflow's models."""

from emflow.simulation.library import ParticleLibrary
from emflow.simulation.ranges import SimulationRanges
from emflow.simulation.scene import Scene, draw_scene
from emflow.simulation.shapes import Structure

__all__ = ["ParticleLibrary", "Scene", "SimulationRanges", "Structure", "draw_scene"]
