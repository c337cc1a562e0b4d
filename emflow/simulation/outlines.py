"""Outlines of what lies on a grid: how deep inside a pixel is, in pixels, positive inside.

They work alike on a whole canvas, (h, 1) and (1, w), and on single points, (n,) and (n,): where particles
may lie is asked on the CPU, where pictures are made on any device.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from emflow.simulation.ranges import uniform

Part = tuple[slice, slice]


class Outline(Protocol):
    """What is inside of something: its ``part`` of a canvas, and the depth of pixels."""

    def part(self, shape: tuple[int, int]) -> Part | None:
        """Return the part of a canvas (h, w) that is looked at, or None when all of it lies outside."""

    def depth(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the depth in pixels, float32, positive inside, of pixels of the canvas."""


def pixels_of(part: Part, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return y (h, 1) and x (1, w) of a part of a canvas, float32."""
    y, x = (torch.arange(side.start, side.stop, dtype=torch.float32, device=device) for side in part)
    return y[:, None], x[None, :]


def window(shape: tuple[int, int], centre_yx: tuple[float, float], radius: float) -> Part | None:
    """Return the part of an image within a square of half-side ``radius``, or None when outside."""
    (top, bottom), (left, right) = (
        (max(0, math.floor(centre - radius)), min(size, math.ceil(centre + radius) + 1))
        for centre, size in zip(centre_yx, shape, strict=True)
    )
    if bottom - top < 2 or right - left < 2:
        return None
    return slice(top, bottom), slice(left, right)


def edge(depth: torch.Tensor, width: float) -> torch.Tensor:
    """Return a smooth step: 0 where the depth is below 0, 1 where above ``width``."""
    t = (depth * (1 / max(width, 1e-3))).clamp(0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Blob:
    """A disc, or a polygon of so many ``corners``, whose outline wanders.

    ``reach_pixels`` is half the side of the square that is looked at; ``waves`` are sizes over the radius and
    phases of the outline's second, third and so on harmonic; it is ``stretch`` times as long along
    ``turn_radian`` as across.
    """

    centre_yx: tuple[float, float]
    radius_pixels: float
    reach_pixels: float
    corners: int = 0
    corner_radian: float = 0.0
    waves: tuple[tuple[float, float], ...] = ()
    stretch: float = 1.0
    turn_radian: float = 0.0

    @staticmethod
    def draw(
        rng: np.random.Generator,
        centre_yx: tuple[float, float],
        radius_pixels: float,
        *,
        reach: float,
        roughness: float,
        corners: int = 0,
        stretch: float = 1.0,
    ) -> "Blob":
        """Draw an outline of a ``roughness`` over the radius; ``reach`` is over the radius as well."""
        return Blob(
            centre_yx,
            radius_pixels,
            reach * radius_pixels,
            corners,
            float(rng.random()) * 2 * math.pi / max(1, corners),
            tuple(
                (roughness * float(rng.standard_normal()) / wave**0.7, float(rng.random()) * 2 * math.pi)
                for wave in range(2, 7)
            ),
            stretch,
            uniform(rng, (0, math.pi)),
        )

    def part(self, shape: tuple[int, int]) -> Part | None:
        """Return the square about it."""
        return window(shape, self.centre_yx, self.reach_pixels)

    def along_and_across(self, y: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coordinates along and across it, from its centre."""
        y, x = y - self.centre_yx[0], x - self.centre_yx[1]
        cos, sin = math.cos(self.turn_radian), math.sin(self.turn_radian)
        return x * cos + y * sin, (y * cos - x * sin) * self.stretch

    def depth(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the depth inside."""
        along, across = self.along_and_across(y, x)
        distance = torch.sqrt(along * along + across * across)
        if not self.corners and not self.waves:
            return self.radius_pixels - distance
        angle = torch.atan2(across, along)
        reach = torch.full_like(angle, self.radius_pixels)
        if self.corners:
            sector = 2 * math.pi / self.corners
            turned = torch.remainder(angle + self.corner_radian, sector) - sector / 2
            reach = reach * math.cos(sector / 2) / torch.cos(turned)
        for wave, (size, phase) in enumerate(self.waves, start=2):
            reach = reach * (1 + size * torch.cos(wave * angle + phase))
        return reach - distance


@dataclass(frozen=True)
class HoleEdge:
    """The edge of a hole, or of the beam: an arc that cuts off part of a canvas, whose middle is given."""

    middle_yx: tuple[float, float]
    angle_radian: float
    level_pixels: float
    bend_per_pixel: float
    wave_pixels: float
    wave_number: float
    wave_phase: float

    @staticmethod
    def draw(rng: np.random.Generator, shape: tuple[int, int], cover: tuple[float, float]) -> "HoleEdge":
        """Draw an edge that cuts off about a share ``cover`` of the canvas."""
        height, width = shape
        size = math.hypot(height, width)
        angle = uniform(rng, (0, 2 * math.pi))
        level = (0.5 - uniform(rng, cover)) * 0.9 * size
        # A hole's radius is one to several micrographs; the edge wavers a little.
        bend = uniform(rng, (-0.1, 0.6)) / size
        wave = uniform(rng, (0.0, 0.008)) * size
        phase = uniform(rng, (0, 2 * math.pi))
        number = uniform(rng, (4, 25)) / size
        return HoleEdge((height / 2, width / 2), angle, level, bend, wave, number, phase)

    def part(self, shape: tuple[int, int]) -> Part | None:
        """Return the whole canvas."""
        return slice(0, shape[0]), slice(0, shape[1])

    def depth(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the depth beyond the edge."""
        y, x = y - self.middle_yx[0], x - self.middle_yx[1]
        cos, sin = math.cos(self.angle_radian), math.sin(self.angle_radian)
        along, across = x * cos + y * sin, y * cos - x * sin
        wavering = self.wave_pixels * torch.sin(across * self.wave_number + self.wave_phase)
        return along - self.level_pixels + self.bend_per_pixel * across**2 + wavering
