"""Bilayers: closed ones, open sheets, bare or with proteins in them."""

import math

import numpy as np
from numpy.typing import NDArray

from emflow.simulation.fields import smooth_field_of
from emflow.simulation.ranges import log_uniform, uniform
from emflow.simulation.tomograms.canvas import Canvas, Part
from emflow.simulation.tomograms.ranges import TomogramRanges
from emflow.tomogram_classes import Label

_HEAD_SIGMA_ANGSTROM = 6.5
_TAIL_SIGMA_ANGSTROM = 6.5
# Beyond the head groups' middle: what a membrane's label takes in.
_RIM_ANGSTROM = 5.0
_PROTEIN_VOLT = 2.6
_DOMAINS = 5  # of a membrane protein


def add_vesicle(rng: np.random.Generator, ranges: TomogramRanges, canvas: Canvas) -> None:
    """Draw a closed bilayer: an ellipsoid or a torus with an undulating surface."""
    centre = canvas.random_ice(rng)
    if centre is None:
        return
    radius = log_uniform(rng, ranges.vesicle_radius_angstrom)
    torus = rng.random() < 0.12
    semi = radius * np.exp(rng.uniform(-0.35, 0.35, 3)) if not torus else np.full(3, radius)
    tube = radius * uniform(rng, (0.3, 0.45))
    reach = (semi.max() + (tube if torus else 0)) * 1.3 + 150
    part = canvas.window(centre, reach / canvas.pixel_size_angstrom)
    if 0 in canvas.labels[part].shape:
        return
    z, y, x = canvas.offsets(part, centre)
    turn = rng.random() * 2 * math.pi
    x, y = math.cos(turn) * x - math.sin(turn) * y, math.sin(turn) * x + math.cos(turn) * y
    if torus:
        ring = np.sqrt(x * x + y * y) - np.float32(radius)
        depth = np.sqrt(ring * ring + z * z) - np.float32(tube)
    else:
        # |p| (1 - 1/k) / (dk/d|p|): the distance from an ellipsoid to first order.
        scaled = np.sqrt((x / semi[0]) ** 2 + (y / semi[1]) ** 2 + (z / semi[2]) ** 2)
        gradient = np.sqrt((x / semi[0] ** 2) ** 2 + (y / semi[1] ** 2) ** 2 + (z / semi[2] ** 2) ** 2)
        depth = scaled * (scaled - 1) / np.maximum(gradient, 1e-6)
    depth = depth + _undulation(rng, ranges, depth.shape)
    if (canvas.taken[part] & (canvas.labels[part] == Label.MEMBRANE) & (np.abs(depth) < 40)).any():
        return  # membranes do not cross
    _draw_bilayer(rng, ranges, canvas, part, depth.astype(np.float32))


def add_sheet(rng: np.random.Generator, ranges: TomogramRanges, canvas: Canvas) -> None:
    """Draw a bilayer that crosses the volume, undulating."""
    centre = canvas.random_ice(rng)
    if centre is None:
        return
    part: Part = (slice(0, canvas.shape[0]), slice(0, canvas.shape[1]), slice(0, canvas.shape[2]))
    z, y, x = canvas.offsets(part, centre)
    angle, lean = rng.random() * 2 * math.pi, uniform(rng, (-40.0, 40.0))
    up, along = math.sin(math.radians(lean)), math.cos(math.radians(lean))
    depth = along * (math.cos(angle) * x + math.sin(angle) * y) + up * z
    depth = depth + _undulation(rng, ranges, depth.shape)
    if (canvas.taken & (canvas.labels == Label.MEMBRANE) & (np.abs(depth) < 40)).any():
        return
    _draw_bilayer(rng, ranges, canvas, part, depth.astype(np.float32))


def _undulation(
    rng: np.random.Generator, ranges: TomogramRanges, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return displacements in angstrom (z, y, x) that vary over some hundred angstrom."""
    size = uniform(rng, ranges.undulation_angstrom)
    depth, height, width = shape
    plane = smooth_field_of(rng, (height, width), uniform(rng, (25.0, 80.0)))
    column = smooth_field_of(rng, (depth, 2), uniform(rng, (25.0, 80.0)))[:, :1, None]
    return np.asarray(0.8 * size * (plane[None] + 0.5 * column), dtype=np.float32)


def _draw_bilayer(
    rng: np.random.Generator,
    ranges: TomogramRanges,
    canvas: Canvas,
    part: Part,
    depth: NDArray[np.float32],
) -> None:
    """Draw heads and tails at the surface where ``depth`` (z, y, x; angstrom) is 0."""
    half = uniform(rng, ranges.head_distance_angstrom) / 2
    head, tail = uniform(rng, ranges.head_volt), uniform(rng, ranges.tail_volt)
    # A voxel sees the profile's mean over its own width.
    blur = canvas.pixel_size_angstrom**2 / 12
    head_sigma = math.sqrt(_HEAD_SIGMA_ANGSTROM**2 + blur)
    tail_sigma = math.sqrt(_TAIL_SIGMA_ANGSTROM**2 + blur)
    profile = head * _HEAD_SIGMA_ANGSTROM / head_sigma * (
        np.exp(-0.5 * ((depth - half) / head_sigma) ** 2) + np.exp(-0.5 * ((depth + half) / head_sigma) ** 2)
    ) + tail * _TAIL_SIGMA_ANGSTROM / tail_sigma * np.exp(-0.5 * (depth / tail_sigma) ** 2)
    canvas.volts[part] += np.where(np.abs(depth) < half + 30, profile, 0).astype(np.float32)
    inside = np.abs(depth) <= half + _RIM_ANGSTROM
    canvas.mark(part, inside, Label.MEMBRANE)
    _add_membrane_proteins(rng, ranges, canvas, part, depth, half)


def _add_membrane_proteins(
    rng: np.random.Generator,
    ranges: TomogramRanges,
    canvas: Canvas,
    part: Part,
    depth: NDArray[np.float32],
    half: float,
) -> None:
    """Put small proteins on both faces, up to 90 angstrom high; they carry no label of their own."""
    shell = np.abs(np.abs(depth) - half - uniform(rng, (10.0, 50.0))) < canvas.pixel_size_angstrom / 2
    shell &= canvas.labels[part] == Label.BACKGROUND
    area = shell.sum() * (canvas.pixel_size_angstrom / 1e4) ** 2
    count = rng.poisson(uniform(rng, ranges.membrane_proteins_per_square_micrometre) * float(area))
    if not count or not shell.any():
        return
    places = np.argwhere(shell)
    chosen = places[rng.integers(len(places), size=count)] + [piece.start for piece in part]
    sigma = 16.0 / canvas.pixel_size_angstrom
    voxels = np.repeat(chosen, _DOMAINS, axis=0) + rng.normal(0, sigma, (count * _DOMAINS, 3))
    mass = uniform(rng, (40e3, 150e3)) / 0.81 * _PROTEIN_VOLT / canvas.pixel_size_angstrom**3
    canvas.add_points(voxels, mass / _DOMAINS, blobs=True)
