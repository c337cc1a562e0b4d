"""Where a point of the specimen lies in every image of a tilt series, by RELION 5's convention.

An image shows ``centre + shift + (Rz(z_rot) Ry(y_tilt) Rx(x_tilt) (p - centre of the specimen))``, its first
two components, with right-handed rotations and every centre at ``side // 2`` (RELION 5.0,
``src/jaz/tomography/tomogram.cpp``). Here points and images are in angstrom from their centres: pixel sizes
and binning come in only where an array is read or written.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def rotation_x(degrees: Vector | float) -> Vector:
    """Return right-handed rotations about x, shape (..., 3, 3)."""
    cosine, sine, one, zero = _parts(degrees)
    return _stack([[one, zero, zero], [zero, cosine, -sine], [zero, sine, cosine]])


def rotation_y(degrees: Vector | float) -> Vector:
    """Return right-handed rotations about y, shape (..., 3, 3)."""
    cosine, sine, one, zero = _parts(degrees)
    return _stack([[cosine, zero, sine], [zero, one, zero], [-sine, zero, cosine]])


def rotation_z(degrees: Vector | float) -> Vector:
    """Return right-handed rotations about z, shape (..., 3, 3)."""
    cosine, sine, one, zero = _parts(degrees)
    return _stack([[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]])


def _parts(degrees: Vector | float) -> tuple[Vector, Vector, Vector, Vector]:
    radians = np.radians(np.asarray(degrees, dtype=np.float64))
    return np.cos(radians), np.sin(radians), np.ones_like(radians), np.zeros_like(radians)


def _stack(rows: list[list[Vector]]) -> Vector:
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


@dataclass(frozen=True)
class TiltGeometry:
    """The alignment of a tilt series of n images; every array is float64 of shape (n,).

    ``z_rot_degrees`` is the angle of the tilt axis, ``y_tilt_degrees`` the tilt about it; the shifts are
    those of the image's content after rotation, along the camera's x and y.
    """

    x_tilt_degrees: Vector
    y_tilt_degrees: Vector
    z_rot_degrees: Vector
    x_shift_angstrom: Vector
    y_shift_angstrom: Vector

    def __post_init__(self) -> None:
        if len({values.shape for values in self._arrays()}) != 1 or self.y_tilt_degrees.ndim != 1:
            raise ValueError("a tilt geometry needs five arrays of one length")

    def __len__(self) -> int:
        """Count the images."""
        return len(self.y_tilt_degrees)

    @classmethod
    def nominal(cls, tilts_degrees: Vector, axis_degrees: float | Vector) -> "TiltGeometry":
        """Return what the microscope says: its tilts about its axis, and no shift."""
        tilts = np.asarray(tilts_degrees, dtype=np.float64)
        zeros = np.zeros_like(tilts)
        return cls(zeros, tilts, zeros + axis_degrees, zeros, zeros)

    def _arrays(self) -> tuple[Vector, ...]:
        return (
            self.x_tilt_degrees,
            self.y_tilt_degrees,
            self.z_rot_degrees,
            self.x_shift_angstrom,
            self.y_shift_angstrom,
        )

    @property
    def shifts_angstrom(self) -> Vector:
        """The shifts (x, y) of every image, shape (n, 2)."""
        return np.stack([self.x_shift_angstrom, self.y_shift_angstrom], axis=1)

    def select(self, images: NDArray[np.integer] | NDArray[np.bool_] | list[int] | slice) -> "TiltGeometry":
        """Return the geometry of some of the images."""
        return TiltGeometry(*(values[images] for values in self._arrays()))

    def shifted(self, shifts_angstrom: Vector) -> "TiltGeometry":
        """Return the geometry with shifts (n, 2), as (x, y), in place of its own."""
        x, y = np.asarray(shifts_angstrom, dtype=np.float64).T
        return TiltGeometry(self.x_tilt_degrees, self.y_tilt_degrees, self.z_rot_degrees, x, y)

    def rotations(self) -> Vector:
        """Return the specimen's rotation in every image, shape (n, 3, 3)."""
        about_z, about_y = rotation_z(self.z_rot_degrees), rotation_y(self.y_tilt_degrees)
        return about_z @ about_y @ rotation_x(self.x_tilt_degrees)

    def matrices(self) -> Vector:
        """Return what takes a centred point (x, y, z) to a rotated image's (x, y), shape (n, 2, 3)."""
        return self.rotations()[:, :2]

    def project(self, points_angstrom: Vector) -> Vector:
        """Project points into every image.

        Parameters
        ----------
        points_angstrom
            Shape (m, 3): (x, y, z) from the centre of the specimen.

        Returns
        -------
        Vector
            Shape (n, m, 2): (x, y) in angstrom from the centre of each image.
        """
        projected: Vector = np.einsum("nij,mj->nmi", self.matrices(), np.asarray(points_angstrom))
        return projected + self.shifts_angstrom[:, None]

    def depths_angstrom(self, points_angstrom: Vector) -> Vector:
        """Return how far points (m, 3) lie along the beam in every image, shape (n, m)."""
        depths: Vector = np.einsum("nj,mj->nm", self.rotations()[:, 2], np.asarray(points_angstrom))
        return depths
