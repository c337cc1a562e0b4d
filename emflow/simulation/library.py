"""The particles that a simulation draws from, and their projections."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from emflow.simulation.families import SYMMETRY_ORDERS
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


def splat(
    target: NDArray[np.float32],
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    weights: NDArray[np.floating],
) -> None:
    """Add points to an image (h, w) in place, each shared among its four pixels; those outside are lost."""
    height, width = target.shape
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, down = x - column, y - row
    keep = (column >= 0) & (row >= 0) & (column < width - 1) & (row < height - 1)
    if not keep.all():
        column, row, right, down, weights = column[keep], row[keep], right[keep], down[keep], weights[keep]
    index = row * width + column
    flat = target.reshape(-1)
    for offset, share in (
        (0, (1 - right) * (1 - down)),
        (1, right * (1 - down)),
        (width, (1 - right) * down),
        (width + 1, right * down),
    ):
        flat += np.bincount(index + offset, weights * share, minlength=flat.size).astype(np.float32)


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
        self._views: dict[tuple[int, int], torch.Tensor] = {}

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

    def views(self, index: int, level: int) -> torch.Tensor:
        """Return the projections of a structure at a level: float32 (views, 1, box, box).

        A pixel holds the projected excess potential over the structure's diameter, in volt, so that a
        rescaled particle of the same matter is the same picture.
        """
        key = (index, level)
        if key not in self._views:
            structure = self.structure(index)
            box = 2 * int(BOX * level / 2) + 1
            pixel = structure.diameter_angstrom / level
            rotations = rotation_matrices(self.directions, np.zeros(len(self.directions)))
            plane = np.einsum(
                "vij,nj->vin", rotations[:, :2].astype(np.float32), structure.positions_angstrom
            )
            plane = plane / pixel + box // 2
            views = np.zeros((len(rotations), box, box), dtype=np.float32)
            for view, (x, y) in zip(views, plane, strict=True):
                splat(view, x, y, structure.weights)
            # Sharing among four pixels is itself a blur of variance 1/6 pixel^2 or so.
            sigma = max(0.0, (structure.blob_sigma_angstrom / pixel) ** 2 - 1 / 6) ** 0.5
            views = ndimage.gaussian_filter(views, (0, sigma, sigma), mode="constant")
            views /= pixel**2 * structure.diameter_angstrom
            self._views[key] = torch.from_numpy(views)[:, None]
        return self._views[key]
