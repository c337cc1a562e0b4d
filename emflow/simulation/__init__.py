"""A physical simulator of cryo-EM micrographs with known truth: what trains and tests emflow's models.

`draw_scene` makes one micrograph from a seed. All numbers of it are drawn first, on the CPU (`plan`), so that
the truth is the same wherever the pictures are made (`imaging`): on a CPU, or several at once on a GPU.
In this order:

1. ``ranges``: draws from what `emflow.simulation_ranges` says (`SimulationRanges`).
2. ``families``, ``shapes``, ``atoms``, ``library``: particles as blobs of potential in excess of ice,
   procedural (in two splits that share no shape) or from atomic models, and their projections.
3. ``species``, ``placement``, ``depth``, ``particles``: which, where they lie, over one another where the
   ice is thick enough, and how they are turned; fragments and aggregates.
4. ``contaminants``: crystals, ethane, carbon, foil, beads, cracks, beam edge, each with its outline
   (``outlines``), which tells where particles may lie and what is junk.
5. ``microscope``: CTF, envelope, drift, amorphous ice.
6. ``detector``: Poisson electrons, MTF, DQE, gain errors, bad pixels.

Image formation is that of a weak phase object: contrast is linear in the projected potential and saturates
smoothly where it is strong, so crystals, foil and beads are likenesses rather than physics. Damage is one
envelope for all frames; fragments and aggregates are at one height; there is no energy spread beyond the
B factor, no beam tilt and no crystalline ice film.
"""

from emflow.simulation.library import ParticleLibrary
from emflow.simulation.scene import Scene, draw_scene, draw_scenes
from emflow.simulation.shapes import Structure
from emflow.simulation_ranges import SimulationRanges

__all__ = ["ParticleLibrary", "Scene", "SimulationRanges", "Structure", "draw_scene", "draw_scenes"]
