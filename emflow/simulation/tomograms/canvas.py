"""The volume that a specimen is drawn in: potential, labels, and what is taken already."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from emflow.simulation.shapes import Structure
from emflow.tomogram_classes import Label

_TRIES = 12
_GAP_ANGSTROM = 15.0
BLOB_ANGSTROM = 13.0


Part = tuple[slice, slice, slice]


class Canvas:
    """An empty volume; ``points`` gather as weights per voxel and become potential in `rendered`.

    Attributes
    ----------
    volts
        float32 (z, y, x): what is drawn as density.
    labels
        uint8 (z, y, x).
    taken
        bool (z, y, x): where nothing compact may go any more.
    """

    def __init__(self, shape: tuple[int, int, int], pixel_size_angstrom: float) -> None:
        self.shape = shape
        self.pixel_size_angstrom = pixel_size_angstrom
        self.volts = np.zeros(shape, dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.uint8)
        self.taken = np.zeros(shape, dtype=bool)
        self._points = np.zeros(shape, dtype=np.float32)
        self._blobs = np.zeros(shape, dtype=np.float32)

    @property
    def centre_voxel(self) -> NDArray[np.float64]:
        """The voxel (z, y, x) that centred coordinates count from."""
        return np.array([side // 2 for side in self.shape], dtype=np.float64)

    def centred_angstrom(self, voxel_zyx: NDArray[np.floating]) -> tuple[float, float, float]:
        """Return the centred (x, y, z) in angstrom of a voxel position (z, y, x)."""
        z, y, x = (np.asarray(voxel_zyx) - self.centre_voxel) * self.pixel_size_angstrom
        return float(x), float(y), float(z)

    def random_ice(self, rng: np.random.Generator) -> NDArray[np.float64] | None:
        """Return a random position (z, y, x) in the ice, or None where there is hardly any."""
        for _ in range(50):
            position = rng.random(3) * self.shape
            z, y, x = position.astype(int)
            if self.labels[z, y, x] != Label.VOID:
                return np.asarray(position)
        return None

    def window(self, centre: NDArray[np.floating], radius_voxels: float) -> Part:
        """Return the part of the volume within a cube about a voxel position (z, y, x)."""
        parts = (
            slice(max(0, math.floor(c - radius_voxels)), max(0, min(side, math.ceil(c + radius_voxels) + 1)))
            for c, side in zip(centre, self.shape, strict=True)
        )
        z, y, x = parts
        return z, y, x

    def offsets(self, part: Part, centre: NDArray[np.floating]) -> list[NDArray[np.float32]]:
        """Return z, y, x of a part of the volume from a position, in angstrom, ready to broadcast."""
        return [
            (np.arange(piece.start, piece.stop, dtype=np.float32) - np.float32(c)).reshape(
                [-1 if axis == other else 1 for other in range(3)]
            )
            * np.float32(self.pixel_size_angstrom)
            for axis, (piece, c) in enumerate(zip(part, centre, strict=True))
        ]

    def around(
        self, centre: NDArray[np.floating], radius_angstrom: float
    ) -> tuple[Part, NDArray[np.float32]]:
        """Return a cube about a position and the distance in angstrom of each of its voxels."""
        part = self.window(centre, radius_angstrom / self.pixel_size_angstrom)
        z, y, x = self.offsets(part, centre)
        return part, np.sqrt(z * z + y * y + x * x)

    def mark(self, part: Part, inside: NDArray[np.bool_], label: Label) -> None:
        """Label voxels of a part, and take them."""
        inside = inside & (self.labels[part] != Label.VOID)
        self.labels[part][inside] = label
        self.taken[part] |= inside

    def free_place(self, rng: np.random.Generator, radius_angstrom: float) -> NDArray[np.float64] | None:
        """Return a position (z, y, x) with nothing taken within a radius, or None when none was found."""
        for _ in range(_TRIES):
            centre = self.random_ice(rng)
            if centre is None:
                return None
            part, distance = self.around(centre, radius_angstrom + _GAP_ANGSTROM)
            if not self.taken[part][distance <= radius_angstrom + _GAP_ANGSTROM].any():
                return centre
        return None

    def add_points(
        self, voxels_zyx: NDArray[np.floating], weights: NDArray[np.floating] | float, *, blobs: bool = False
    ) -> None:
        """Add point masses, in volt voxels, each shared among its eight voxels; those outside are lost.

        With ``blobs`` each is a protein's domain, `BLOB_ANGSTROM` wide.
        """
        base = np.floor(voxels_zyx).astype(np.int64)
        share = (voxels_zyx - base).astype(np.float32)
        keep = ((base >= 0) & (base < np.array(self.shape) - 1)).all(axis=1)
        base, share = base[keep], share[keep]
        weight = np.broadcast_to(np.asarray(weights, dtype=np.float32), (len(keep),))[keep]
        _, height, width = self.shape
        index = (base[:, 0] * height + base[:, 1]) * width + base[:, 2]
        flat = (self._blobs if blobs else self._points).reshape(-1)
        for corner in range(8):
            offset = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
            part = np.prod(np.where(offset, share, 1 - share), axis=1) * weight
            np.add.at(flat, index + (offset[0] * height + offset[1]) * width + offset[2], part)

    def place_structure(
        self, rng: np.random.Generator, structure: Structure, rotation: Rotation, label: Label
    ) -> tuple[float, float, float] | None:
        """Put a turned structure where there is room; return its centre (x, y, z), or None without room."""
        positions = rotation.apply(structure.positions_angstrom)[:, ::-1] / self.pixel_size_angstrom
        reach = np.abs(positions).max() + 2
        for _ in range(_TRIES):
            centre = self.random_ice(rng)
            if centre is None:
                return None
            part = self.window(centre, reach)
            own = self._filled(structure, positions + centre, part)
            grown = ndimage.binary_dilation(own, iterations=1)
            if own.any() and not (self.taken[part] & grown).any():
                break
        else:
            return None
        volume = self.pixel_size_angstrom**3
        self.add_points(positions + centre, structure.weights / volume)
        self.labels[part][own] = label
        self.taken[part] |= own
        return self.centred_angstrom(centre)

    def _filled(
        self, structure: Structure, voxels_zyx: NDArray[np.floating], part: Part
    ) -> NDArray[np.bool_]:
        """Return which voxels of a part a structure fills, by its blurred mass."""
        shape = tuple(piece.stop - piece.start for piece in part)
        start = np.array([piece.start for piece in part])
        nearest = np.rint(voxels_zyx).astype(np.int64) - start
        inside = ((nearest >= 0) & (nearest < np.array(shape))).all(axis=1)
        mass = np.zeros(shape, dtype=np.float32)
        np.add.at(mass, tuple(nearest[inside].T), structure.weights[inside].astype(np.float32))
        mass = ndimage.gaussian_filter(mass, 1.0)
        if not mass.size or mass.max() <= 0:
            return np.zeros(shape, dtype=bool)
        filled: NDArray[np.bool_] = mass > 0.2 * np.percentile(mass[mass > 0.01 * mass.max()], 90)
        return filled

    def rendered(self) -> NDArray[np.float32]:
        """Return the potential (z, y, x): what was drawn, and the points as blurred as voxels need."""
        # Sharing among eight voxels is itself a blur of variance 1/6 voxel^2; 0.7 voxel in all is enough.
        blurred = ndimage.gaussian_filter(self._points, 0.57)
        wide = math.sqrt(max(0.3, (BLOB_ANGSTROM / self.pixel_size_angstrom) ** 2 - 1 / 6))
        blurred += ndimage.gaussian_filter(self._blobs, wide)
        return np.asarray(self.volts + blurred, dtype=np.float32)
