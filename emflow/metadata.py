"""What emflow knows of a microscope, a micrograph and its picks: frozen, with units in the names."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OpticsGroup:
    """The microscope's constants that a group of micrographs shares (RELION's optics group)."""

    name: str
    pixel_size_angstrom: float
    voltage_kilovolt: float
    spherical_aberration_millimetre: float
    amplitude_contrast: float = 0.1


@dataclass(frozen=True)
class Ctf:
    """A contrast transfer function as RELION states it: underfocus positive, angle of defocus U to x."""

    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_degrees: float
    phase_shift_degrees: float = 0.0
    max_resolution_angstrom: float | None = None
    figure_of_merit: float | None = None


DOUBTFUL_CTF = 0.5
"""A CTF fitted here with a lower figure of merit is as likely wrong as right."""


FEWEST_TILTS = 5
"""With fewer usable images no tomogram can be made of a tilt series."""


@dataclass(frozen=True)
class Micrograph:
    """One micrograph that the pipeline accepted.

    ``name`` is unique in its session: the path below the glob's fixed part. ``path`` is an MRC file
    whose rows are as RELION sees them. ``height`` and ``width`` are in unbinned pixels.
    """

    name: str
    path: str
    height: int
    width: int
    optics: OpticsGroup
    ctf: Ctf | None = None


@dataclass(frozen=True)
class Picks:
    """Candidate particles of one micrograph, best first.

    ``x`` and ``y`` (float64, shape (n,)) are 0-based pixels of the unbinned micrograph, pixel centres at
    integers; ``figure_of_merit`` (float64, shape (n,)) is the calibrated probability, 0..1, of a particle.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    figure_of_merit: NDArray[np.float64]

    def __len__(self) -> int:
        """Count the candidates."""
        return len(self.x)

    def above(self, threshold: float) -> "Picks":
        """Return those whose figure of merit is at least ``threshold``."""
        keep = self.figure_of_merit >= threshold
        return Picks(self.x[keep], self.y[keep], self.figure_of_merit[keep])
