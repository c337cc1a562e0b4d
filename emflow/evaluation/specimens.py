"""Labelled micrographs of one specimen: simulated of a particle that training never saw, or real ones."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from emflow.metadata import Ctf, OpticsGroup
from emflow.scoring import Points
from emflow.simulation import ParticleLibrary, SimulationRanges, Structure, draw_scene

# What a session shows: one particle of its own size, as visible as its physics make it.
SESSION = SimulationRanges(
    defocus_angstrom=(6000.0, 30000.0),
    dose_electrons_per_square_angstrom=(30.0, 60.0),
    protein_contrast=(0.6, 1.0),
    signal_to_noise=(1e-9, 1e9),
    second_species_probability=0.0,
    rescale=(1.0, 1.0),
    phase_plate_probability=0.0,
    empty_probability=0.0,
)

CONDITIONS: Mapping[str, SimulationRanges] = MappingProxyType(
    {
        "clean": replace(SESSION.clean(), coverage=(0.08, 0.2), overlap_probability=0.0),
        "crowded": replace(SESSION.clean(), coverage=(0.4, 0.6), minimum_distance_diameters=(0.75, 1.0)),
        # Crystals, carbon and aggregates in every micrograph, the rest as often as elsewhere.
        "contaminated": replace(
            SESSION,
            coverage=(0.08, 0.3),
            ice_crystal_probability=1.0,
            carbon_probability=0.5,
            aggregate_probability=1.0,
            ethane_probability=0.3,
            distractor_probability=0.5,
        ),
    }
)


@dataclass(frozen=True)
class Labelled:
    """A micrograph whose particles are known.

    ``image`` float32 (h, w), protein dark; ``centres_yx`` float64 (n, 2) in its pixels; ``junk`` bool (h, w),
    None where nobody marked the contaminants. ``diameter_angstrom`` is what the pickers are told and what
    picks are matched by. ``optics`` and ``ctf`` are known of simulated micrographs alone.
    """

    name: str
    image: NDArray[np.float32]
    pixel_size_angstrom: float
    diameter_angstrom: float
    centres_yx: Points
    junk: NDArray[np.bool_] | None = None
    optics: OpticsGroup | None = None
    ctf: Ctf | None = None

    @property
    def diameter_pixels(self) -> float:
        """The particle's diameter in pixels of ``image``."""
        return self.diameter_angstrom / self.pixel_size_angstrom


@dataclass(frozen=True)
class Specimen:
    """A particle that micrographs are simulated of."""

    name: str
    library: ParticleLibrary

    @classmethod
    def of_model(cls, structure: Structure) -> "Specimen":
        """Take an atomic model."""
        return cls(structure.name, ParticleLibrary("held_apart", procedural=0, models=[structure]))

    @classmethod
    def procedural(cls, seed: int) -> "Specimen":
        """Take the made-up particle of a seed; no particle of the training split is among them."""
        return cls(f"made-up {seed}", ParticleLibrary("held_apart", procedural=1, first=seed))

    @property
    def diameter_angstrom(self) -> float:
        """The particle's diameter."""
        return self.library.structure(0).diameter_angstrom

    def pixel_size_angstrom(self, pixels_per_diameter: float = 100.0) -> float:
        """Return a pixel size that gives the particle so many pixels, within 1 and 3 angstrom."""
        return float(np.clip(self.diameter_angstrom / pixels_per_diameter, 1.0, 3.0))


def simulate(
    specimen: Specimen,
    condition: str,
    *,
    seed: int,
    shape: tuple[int, int],
    pixel_size_angstrom: float | None = None,
) -> Labelled:
    """Simulate a micrograph of a specimen under a condition of `CONDITIONS`.

    The pixel size is the specimen's own choice when None. The same arguments give the same bytes; another
    specimen or condition is another draw throughout.
    """
    pixel_size = pixel_size_angstrom or specimen.pixel_size_angstrom()
    scene = draw_scene(
        zlib.crc32(f"{specimen.name} {condition} {seed}".encode()),
        shape=shape,
        library=specimen.library,
        ranges=CONDITIONS[condition],
        pixel_size_angstrom=pixel_size,
    )
    return Labelled(
        name=f"{specimen.name} {condition} {seed}",
        image=scene.image,
        pixel_size_angstrom=pixel_size,
        diameter_angstrom=scene.diameter_pixels * pixel_size,
        centres_yx=scene.centres_yx,
        junk=scene.junk,
        optics=scene.optics,
        ctf=scene.ctf,
    )
