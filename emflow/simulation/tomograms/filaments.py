"""Microtubules and actin: subunits along a gently bent path."""

import math

import numpy as np
from numpy.typing import NDArray

from emflow.simulation.ranges import uniform
from emflow.simulation.tomograms.canvas import Canvas
from emflow.tomogram_classes import Label

_STEP_ANGSTROM = 10.0
_TUBULIN_DALTON, _ACTIN_DALTON = 50_000.0, 42_000.0
_VOLT_CUBIC_ANGSTROM_PER_DALTON = 2.6 / 0.81


def _path(rng: np.random.Generator, canvas: Canvas, bend_per_angstrom: float) -> NDArray[np.float64] | None:
    """Return points (n, 3) in angstrom (z, y, x) from voxel 0, every 10 angstrom, through the volume."""
    start = canvas.random_ice(rng)
    if start is None:
        return None
    direction = rng.standard_normal(3) * [0.25, 1.0, 1.0]
    direction /= np.linalg.norm(direction)
    half = 1.5 * max(canvas.shape) * canvas.pixel_size_angstrom / _STEP_ANGSTROM
    arc = (np.arange(-half, half) * _STEP_ANGSTROM)[:, None]
    bend = np.cross(direction, rng.standard_normal(3)) * bend_per_angstrom
    return np.asarray(start * canvas.pixel_size_angstrom + arc * direction + 0.5 * arc**2 * bend)


def _frames(path: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two unit vectors (n, 3) across a path that is nowhere parallel to its first normal."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(along).max(axis=0))]
    first = np.cross(along, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return first, np.cross(along, first)


def _draw(
    canvas: Canvas,
    path: NDArray[np.float64],
    subunits: NDArray[np.float64],
    radius_angstrom: float,
    subunit_dalton: float,
) -> None:
    """Add subunits (n, 3) unless the filament would cross something that is there already."""
    pixel = canvas.pixel_size_angstrom
    inside = np.zeros(canvas.shape, dtype=bool)
    for point in path / pixel:
        if (
            (point < -radius_angstrom / pixel) | (point > np.array(canvas.shape) + radius_angstrom / pixel)
        ).any():
            continue
        part, distance = canvas.around(point, radius_angstrom)
        inside[part] |= distance <= radius_angstrom
    ice = inside & (canvas.labels != Label.VOID)
    if not ice.any() or (canvas.taken & ice).any():
        return
    whole = (slice(0, canvas.shape[0]), slice(0, canvas.shape[1]), slice(0, canvas.shape[2]))
    canvas.mark(whole, inside, Label.FILAMENT)
    voxels = subunits / pixel
    nearest = np.clip(np.rint(voxels).astype(int), 0, np.array(canvas.shape) - 1)
    voxels = voxels[canvas.labels[tuple(nearest.T)] == Label.FILAMENT]
    canvas.add_points(voxels, subunit_dalton * _VOLT_CUBIC_ANGSTROM_PER_DALTON / pixel**3, blobs=True)


def add_microtubule(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw a microtubule: 12 to 14 protofilaments of 40 angstrom subunits, on a 3-start helix."""
    path = _path(rng, canvas, uniform(rng, (0.0, 2e-5)))
    if path is None:
        return
    protofilaments = int(rng.choice([12, 13, 13, 13, 14]))
    radius = 112.0 * protofilaments / 13
    first, second = _frames(path)
    arc = np.arange(len(path)) * _STEP_ANGSTROM
    subunits = []
    for number in range(protofilaments):
        angle = 2 * math.pi * number / protofilaments
        at = np.arange(0, arc[-1] - 130, 40.0) + 120.0 * number / protofilaments
        index = np.interp(at, arc, np.arange(len(path)))
        near = np.rint(index).astype(int)
        centre = np.stack([np.interp(at, arc, path[:, axis]) for axis in range(3)], axis=1)
        subunits.append(centre + radius * (math.cos(angle) * first[near] + math.sin(angle) * second[near]))
    _draw(canvas, path, np.concatenate(subunits), radius + 20, _TUBULIN_DALTON)


def add_actin(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw F-actin: subunits every 27.5 angstrom, turned by -166.6 degrees, 16 angstrom off the axis."""
    path = _path(rng, canvas, uniform(rng, (0.0, 6e-5)))
    if path is None:
        return
    first, second = _frames(path)
    arc = np.arange(len(path)) * _STEP_ANGSTROM
    at = np.arange(0, arc[-1], 27.5)
    angle = np.radians(-166.6) * np.arange(len(at))
    near = np.clip(np.rint(at / _STEP_ANGSTROM).astype(int), 0, len(path) - 1)
    centre = np.stack([np.interp(at, arc, path[:, axis]) for axis in range(3)], axis=1)
    off = np.cos(angle)[:, None] * first[near] + np.sin(angle)[:, None] * second[near]
    _draw(canvas, path, centre + 16.0 * off, 38.0, _ACTIN_DALTON)
