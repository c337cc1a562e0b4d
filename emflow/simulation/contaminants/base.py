"""What every contaminant has: numbers that were drawn, an outline, and how it is laid on a canvas."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.simulation.fields import Noise
from emflow.simulation.outlines import Outline, Part, pixels_of
from emflow.simulation.ranges import uniform


@dataclass(frozen=True)
class FieldOfView:
    """The canvas that contaminants are drawn for, in pixels, and what they are measured by.

    ``particle_radian`` is the phase of a particle's middle.
    """

    shape: tuple[int, int]
    pixel_size_angstrom: float
    diameter_pixels: float
    radian_per_volt_angstrom: float
    particle_radian: float

    def anywhere(self, rng: np.random.Generator, beyond: float = 0.0) -> tuple[float, float]:
        """Draw a point (y, x) of the canvas, or up to ``beyond`` pixels outside it."""
        return (
            uniform(rng, (-beyond, self.shape[0] + beyond)),
            uniform(rng, (-beyond, self.shape[1] + beyond)),
        )


@dataclass(frozen=True)
class Layers:
    """What a scene's canvas holds, tensors (h, w): phase, logarithm of the transmitted fraction, junk.

    ``phase`` goes through the CTF, so that edges get their Fresnel fringes; ``log_transmission`` is what the
    aperture and inelastic scattering take away, on top of the ice's.
    """

    phase: torch.Tensor
    log_transmission: torch.Tensor
    junk: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Return the canvas's (h, w)."""
        height, width = self.phase.shape[-2:]
        return height, width

    def of(self, number: int) -> "Layers":
        """Return those of one scene, of layers (n, h, w) of several: a view."""
        return Layers(self.phase[number], self.log_transmission[number], self.junk[number])


@dataclass(frozen=True)
class Contaminant(ABC):
    """One thing on the grid: its outline, within which it is junk, and how it looks."""

    outline: Outline

    @abstractmethod
    def paint(self, layers: Layers, part: Part, depth: torch.Tensor, noise: Noise) -> None:
        """Add what it does to phase and transmission, given the depth (h, w) of a part of the canvas."""

    def is_junk(self, depth: torch.Tensor) -> torch.Tensor:
        """Return where it is junk, bool, by depth."""
        return depth > 0

    def is_taken(self, depth: torch.Tensor) -> torch.Tensor:
        """Return where no particle can lie, bool, by depth."""
        return torch.zeros_like(depth, dtype=torch.bool)

    def lay(self, layers: Layers, noise: Noise) -> None:
        """Add it to a canvas, in place."""
        part = self.outline.part(layers.shape)
        if part is not None:
            depth = self.outline.depth(*pixels_of(part, noise.device))
            self.paint(layers, part, depth, noise)
            layers.junk[part] |= self.is_junk(depth)


def _at(
    what: Callable[[Contaminant, torch.Tensor], torch.Tensor],
    contaminants: Sequence[Contaminant],
    pixels_yx: NDArray[np.integer],
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    found = np.zeros(len(pixels_yx), dtype=bool)
    y, x = torch.from_numpy(pixels_yx.astype(np.float32)).unbind(1)
    for one in contaminants:
        part = one.outline.part(shape)
        if part is None or not len(pixels_yx):
            continue
        seen = [(pixels_yx[:, a] >= part[a].start) & (pixels_yx[:, a] < part[a].stop) for a in (0, 1)]
        found |= seen[0] & seen[1] & what(one, one.outline.depth(y, x)).numpy()
    return found


def junk_at(
    contaminants: Sequence[Contaminant], pixels_yx: NDArray[np.integer], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return which pixels (n, 2) of a canvas are on junk, without making any picture."""
    return _at(lambda one, depth: one.is_junk(depth), contaminants, pixels_yx, shape)


def taken_at(
    contaminants: Sequence[Contaminant], pixels_yx: NDArray[np.integer], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return at which pixels (n, 2) of a canvas no particle can lie."""
    return _at(lambda one, depth: one.is_taken(depth), contaminants, pixels_yx, shape)
