"""A motion field in RELION's words: shifts of the whole, and a polynomial of 36 coefficients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emflow.motion.field import MotionField

# RELION's motion model 1: (1, x, x^2, y, y^2, x y) times (t, t^2, t^3), x and y from -0.5 to 0.5.
MODEL_VERSION = 1


@dataclass(frozen=True)
class MotionLengths:
    """Length of the path of the image's mean, in angstrom: all of it, up to and after 4 electrons per A^2."""

    total: float
    early: float
    late: float


def motion_lengths(
    field: MotionField, pixel_size_angstrom: float, exposure_electrons_per_square_angstrom: float
) -> MotionLengths:
    """Return how far the specimen went, as RELION counts it (``--dose_motionstats_cutoff 4``)."""
    steps = np.linalg.norm(np.diff(field.mean_shifts(), axis=0), axis=1) * pixel_size_angstrom
    # A step ends in the frame after it; RELION calls it early while that frame's exposure is below 4.
    early = (np.arange(1, len(steps) + 1) * exposure_electrons_per_square_angstrom) < 4.0
    return MotionLengths(float(steps.sum()), float(steps[early].sum()), float(steps[~early].sum()))


def _relion_basis(points_yx: NDArray[np.float64], shape: tuple[int, int], frames: int) -> NDArray[np.float64]:
    y, x = (points_yx / np.asarray(shape) - 0.5).T
    space = np.stack([np.ones_like(x), x, x**2, y, y**2, x * y], -1)
    t = np.arange(frames)[:, None] ** np.arange(1, 4)
    return np.asarray(np.einsum("pi,fk->fpik", space, t).reshape(frames, len(x), 18))


def relion_motion_model(
    field: MotionField,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return RELION's global shifts (frames, 2), (x, y), and coefficients (36,) that fit a field best.

    RELION's shifts undo motion, so they are minus the displacement. Its local model is smooth in time and
    has no constant, so what it cannot say of the mean goes into the shifts.
    """
    field = field.relative_to(0)
    height, width = field.shape
    axes = [np.linspace(0.02, 0.98, 15) * side for side in (height, width)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    displacement = field.displacement(grid)
    shifts = displacement.mean(1)
    coefficients = np.zeros(36)
    if field.degree and np.abs(field.coefficients[:, 1:]).max() > 1e-6:
        basis = _relion_basis(grid, field.shape, field.frames)
        # The fit leaves the mean to the shifts: both are taken without it.
        centred = (basis - basis.mean(1, keepdims=True)).reshape(-1, 18)
        local = (displacement - shifts[:, None]).reshape(-1, 2)
        scale = np.linalg.norm(centred, axis=0)
        scale[scale == 0] = 1
        solution = np.linalg.lstsq(centred / scale, local, rcond=None)[0] / scale[:, None]
        # The constant term is no local motion, and stays nought.
        solution[:3] = 0
        coefficients = np.concatenate([-solution[:, 1], -solution[:, 0]]) + 0.0  # no -0
        shifts = shifts - (basis @ solution).mean(1)
    return 0.0 - (shifts - shifts[:1])[:, ::-1], coefficients


def field_of_relion_model(
    shape: tuple[int, int],
    shifts_xy: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    points_yx: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the displacement (frames, points, 2), (y, x), that RELION reads from its shifts and model."""
    basis = _relion_basis(points_yx, shape, len(shifts_xy))
    local = np.stack([basis @ coefficients[18:], basis @ coefficients[:18]], -1)
    return np.asarray(-(shifts_xy[:, None, ::-1] + local))
