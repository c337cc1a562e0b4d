"""A motion field: polynomials over the image, each with a course in time of its own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def degrees_of_basis(degree: int) -> list[tuple[int, int]]:
    """Return (power of y, power of x) of all polynomials up to a total degree, lowest first."""
    return [(total - x, x) for total in range(degree + 1) for x in range(total + 1)]


def basis_values(points_yx: NDArray[np.floating], shape: tuple[int, int], degree: int) -> NDArray[np.float64]:
    """Return products of Legendre polynomials at points (n, 2) in pixels of an image (h, w): (n, terms)."""
    v, u = (2 * np.asarray(points_yx, dtype=np.float64) / np.asarray(shape) - 1).T
    legendre = np.polynomial.legendre.legvander
    along_y, along_x = legendre(v, degree), legendre(u, degree)
    return np.stack([along_y[:, a] * along_x[:, b] for a, b in degrees_of_basis(degree)], -1)


@dataclass(frozen=True)
class MotionField:
    """Displacement of the specimen in each frame, in pixels of the unbinned frame.

    ``coefficients`` float64 (frames, terms, 2) multiply Legendre products of total degree up to ``degree``;
    the last axis is (y, x). A point at r in the reference frame is recorded at ``r + displacement`` in
    frame f.
    """

    shape: tuple[int, int]
    degree: int
    coefficients: NDArray[np.float64]

    @staticmethod
    def zero(shape: tuple[int, int], frames: int) -> "MotionField":
        """Return the field of a specimen that rests."""
        return MotionField(shape, 0, np.zeros((frames, 1, 2)))

    @staticmethod
    def of_shifts(shape: tuple[int, int], shifts_yx: NDArray[np.floating]) -> "MotionField":
        """Return the field of a specimen that moves as a whole by ``shifts_yx`` (frames, 2)."""
        return MotionField(shape, 0, np.asarray(shifts_yx, dtype=np.float64)[:, None])

    @property
    def frames(self) -> int:
        """Count the frames."""
        return len(self.coefficients)

    def displacement(self, points_yx: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the displacement at points (n, 2) in pixels: (frames, n, 2)."""
        values = basis_values(points_yx, self.shape, self.degree)
        return np.asarray(np.einsum("nt,fta->fna", values, self.coefficients))

    def relative_to(self, frame: int) -> "MotionField":
        """Return the same motion with nothing displaced in one frame."""
        return MotionField(self.shape, self.degree, self.coefficients - self.coefficients[frame])

    def mean_shifts(self) -> NDArray[np.float64]:
        """Return the displacement averaged over the image, (frames, 2)."""
        return np.asarray(self.coefficients[:, 0])  # the other Legendre polynomials average to nothing
