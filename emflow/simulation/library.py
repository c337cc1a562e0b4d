"""The particles that a simulation draws from, and their projections."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.simulation.families import SYMMETRY_ORDERS
from emflow.simulation.fields import Device
from emflow.simulation.shapes import Structure, procedural_structure

# Diameters, in pixels, at which projections are kept; a scene takes the nearest that is not much coarser.
LEVELS = (20, 28, 40)
# A view's box over the diameter: 2 % of the weight lies outside the diameter.
BOX = 1.4


def rotation_matrices(
    directions: NDArray[np.float64], angles_radian: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return rotations (n, 3, 3) that turn unit vectors (n, 3) onto z, then by angles (n,) in the plane."""
    z = directions
    helper = np.where(np.abs(z[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    x = np.cross(helper, z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.cross(z, x)
    cos, sin = np.cos(angles_radian)[:, None], np.sin(angles_radian)[:, None]
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1)


def splat(target: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> None:
    """Add points to images in place, each shared among its four pixels; those outside are lost.

    Parameters
    ----------
    target
        float32 (n, h, w).
    x, y
        (n, points), in pixels of each image.
    weights
        What broadcasts to (n, points).
    """
    count, height, width = target.shape
    column, row = torch.floor(x), torch.floor(y)
    right, down = x - column, y - row
    inside = (column >= 0) & (row >= 0) & (column < width - 1) & (row < height - 1)
    weights = weights * inside
    first = torch.arange(count, device=target.device)[:, None] * (height * width)
    # Those outside are added to the first pixels, with a weight of nothing.
    # Whole numbers before they are multiplied: a large canvas has more pixels than float32 can count.
    index = torch.where(inside, row.long() * width + column.long(), 0) + first
    flat = target.view(-1)
    lower, upper = weights * down, weights * (1 - down)
    for offset, share in (
        (0, upper * (1 - right)),
        (1, upper * right),
        (width, lower * (1 - right)),
        (width + 1, lower * right),
    ):
        flat.index_add_(0, (index + offset).reshape(-1), share.reshape(-1))


def _blur_matrix(size: int, sigma_pixels: float, device: torch.device) -> torch.Tensor:
    """Return a matrix (size, size) that blurs a column by a Gaussian; beyond its ends is nothing."""
    if sigma_pixels == 0:
        return torch.eye(size, device=device)
    pixels = torch.arange(size, dtype=torch.float32, device=device)
    matrix = torch.exp(-0.5 * ((pixels[:, None] - pixels[None, :]) / sigma_pixels) ** 2)
    around = torch.arange(-size, size + 1, dtype=torch.float32, device=device)
    return matrix / torch.exp(-0.5 * (around / sigma_pixels) ** 2).sum()


class ParticleLibrary:
    """A bank of structures and, made when first asked for, their projections at small scale.

    Parameters
    ----------
    split
        ``train`` or ``held_apart``: no procedural structure is in both.
    procedural
        How many procedural structures, seeded ``first``, ``first + 1`` and so on: two libraries of one split
        that share no seed share no structure.
    models
        Atomic models besides (see `emflow.simulation.atoms`); a third of all draws falls on them.
    views
        Projections kept of each structure, their directions spread evenly over the sphere.

    Raises
    ------
    ValueError
        If there is no structure at all, or the split is unknown.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        procedural: int = 400,
        first: int = 0,
        models: Sequence[Structure] = (),
        views: int = 32,
    ) -> None:
        if procedural + len(models) < 1:
            raise ValueError("a library of no structures")
        if split not in SYMMETRY_ORDERS:
            raise ValueError(f"split {split!r} is neither of {', '.join(SYMMETRY_ORDERS)}")
        self.split = split
        self.procedural = procedural
        self.first = first
        self.models = tuple(models)
        golden = np.arange(views) * (np.pi * (3 - np.sqrt(5)))
        height = 1 - (2 * np.arange(views) + 1) / views
        around = np.sqrt(1 - height**2)
        self.directions = np.stack([around * np.cos(golden), around * np.sin(golden), height], 1)
        self._structures: dict[int, Structure] = {}
        self._blobs: dict[tuple[int, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}
        self._views: dict[tuple[int, int, torch.device], torch.Tensor] = {}

    @property
    def digest(self) -> str:
        """Tells libraries apart that draw other particles, in hexadecimal."""
        told = hashlib.sha256(f"{self.split} {self.procedural} {self.first}".encode())
        for model in self.models:
            told.update(f"{model.name} {model.blob_sigma_angstrom}".encode())
            told.update(model.positions_angstrom.tobytes() + model.weights.tobytes())
        return told.hexdigest()

    def __len__(self) -> int:
        """Count the structures."""
        return self.procedural + len(self.models)

    def structure(self, index: int) -> Structure:
        """Return one structure: the procedural ones first, then the models."""
        if index >= self.procedural:
            return self.models[index - self.procedural]
        if index not in self._structures:
            self._structures[index] = procedural_structure(self.split, self.first + index)
        return self._structures[index]

    def draw(self, rng: np.random.Generator, diameter_angstrom: float | None = None) -> int:
        """Draw a structure; with a diameter, one that has it or that may be rescaled to it mildly."""
        tries = 1 if diameter_angstrom is None else 30
        index = 0
        for _ in range(tries):
            if self.models and (not self.procedural or rng.random() < 1 / 3):
                index = self.procedural + int(rng.integers(len(self.models)))
            else:
                index = int(rng.integers(self.procedural))
            if diameter_angstrom is None:
                break
            found = self.structure(index)
            factor = diameter_angstrom / found.diameter_angstrom
            if (1 / 1.3 < factor < 1.3) if found.rescalable else (0.9 < factor < 1.1):
                break
        return index

    def blobs(self, index: int, device: Device = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Return a structure's positions (3, n) in angstrom, as (x, y, z), and weights (n,), on a device."""
        key = (index, torch.device(device))
        if key not in self._blobs:
            structure = self.structure(index)
            positions = torch.from_numpy(structure.positions_angstrom.T.copy())
            self._blobs[key] = (positions.to(device), torch.from_numpy(structure.weights).to(device))
        return self._blobs[key]

    def views(self, index: int, level: int, device: Device = "cpu") -> torch.Tensor:
        """Return the projections of a structure at a level: float32 (views, 1, box, box).

        A pixel holds the projected excess potential over the structure's diameter, in volt, so that a
        rescaled particle of the same matter is the same picture.
        """
        device = torch.device(device)
        key = (index, level, device)
        if key not in self._views:
            structure = self.structure(index)
            box = 2 * int(BOX * level / 2) + 1
            pixel = structure.diameter_angstrom / level
            positions, weights = self.blobs(index, device)
            turned = rotation_matrices(self.directions, np.zeros(len(self.directions)))[:, :2]
            rotations = torch.from_numpy(turned.astype(np.float32)).to(device)
            plane = rotations @ positions / pixel + box // 2
            views = torch.zeros((len(rotations), box, box), device=device)
            splat(views, plane[:, 0], plane[:, 1], weights)
            # Sharing among four pixels is itself a blur of variance 1/6 pixel^2 or so.
            sigma = max(0.0, (structure.blob_sigma_angstrom / pixel) ** 2 - 1 / 6) ** 0.5
            blur = _blur_matrix(box, sigma, device)
            views = blur @ views @ blur.T / (pixel**2 * structure.diameter_angstrom)
            self._views[key] = views[:, None]
        return self._views[key]
