"""Alignment of tilt series without fiducials: shifts and the tilt axis, in RELION 5's convention.

The phases of neighbours are correlated from the lowest tilt outwards, the further tilted image stretched by
the cosines (Guckenberger 1982). The tilt axis is where all images agree on their common line; the neighbours
are then correlated once more. From there `emflow.tilt_patches` takes the specimen's thickness into account.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from emflow.tilt_geometry import TiltGeometry, rotation_z
from emflow.tilt_patches import align_patches
from emflow.tilt_sampling import band, sampled, taper

# Sides that images are brought down to for the alignment; a peak is found to a tenth of a pixel.
WORKING_PIXELS = 256
AXIS_RANGE_DEGREES = 4.0
_LARGEST_SHIFT = 0.18  # of the image's side, between neighbours
_AXIS_STEP_DEGREES = 0.5
# Shorter lines are alike at many angles: the stated axis is the better guess.
_SMALLEST_AXIS_PIXELS = 192
_AXIS_TILTS_DEGREES = 65.0
# What patches find moves them, and cut anew they find more, the less the nearer.
_PATCH_PASSES = 4
_SETTLED_PIXELS = 0.1
_AXIS_BAND = (4, 60)  # of the line's frequencies, in periods


@dataclass(frozen=True)
class Alignment:
    """What an alignment found: the geometry, and how well each image agrees with its neighbour.

    ``correlation`` (n,) is that of each image with the one it was aligned to, 1 for the least tilted one;
    ``residual_angstrom`` (n,) how far the neighbours' correlation alone would move it.
    """

    geometry: TiltGeometry
    correlation: NDArray[np.float64]
    residual_angstrom: NDArray[np.float64]


def align(
    images: Tensor,
    geometry: TiltGeometry,
    pixel_size_angstrom: float,
    *,
    refine_axis: bool = True,
    specimen_angstrom: float = 900.0,
) -> Alignment:
    """Find shifts and tilt axis of a tilt series.

    Parameters
    ----------
    images
        Shape (n, h, w), mean 0, in the order of their tilt.
    geometry
        To start from; its shifts are where the search begins.
    pixel_size_angstrom
        Of the images.
    refine_axis
        Whether to look for the angle of the tilt axis within `AXIS_RANGE_DEGREES` of the stated one.
    specimen_angstrom
        The specimen's thickness, roughly.

    Returns
    -------
    Alignment
        Tilts are as given; the mean position of the images' middles is the specimen's middle.
    """
    working, pixel = _working_images(images, pixel_size_angstrom)
    # Twice: the second time neighbours overlap as they should.
    for _ in range(2):
        geometry, _ = chained(working, geometry, pixel)
    refine_axis = refine_axis and min(working.shape[-2:]) >= _SMALLEST_AXIS_PIXELS
    if refine_axis:
        stated = float(geometry.z_rot_degrees.mean())
        for _ in range(2):
            geometry = replace(geometry, z_rot_degrees=refined_axis(working, geometry, pixel, stated))
            geometry, _ = chained(working, geometry, pixel)
    # Of small images the patches are few: passes made the sections of a real needle of 128 pixels less round.
    for _ in range(_PATCH_PASSES if min(working.shape[-2:]) >= _SMALLEST_AXIS_PIXELS else 1):
        before = geometry
        geometry = align_patches(
            working, geometry, pixel, refine_axis=refine_axis, specimen_angstrom=specimen_angstrom
        )
        if shift_error(geometry, before) < _SETTLED_PIXELS * pixel:
            break
    again, correlation = chained(working, geometry, pixel)
    moved = again.shifts_angstrom - geometry.shifts_angstrom
    residual = np.hypot(*np.diff(moved, axis=0, prepend=moved[:1]).T)
    return Alignment(centred(geometry), correlation, residual)


def _working_images(images: Tensor, pixel_size_angstrom: float) -> tuple[Tensor, float]:
    """Average images down to at most `WORKING_PIXELS` a side, band-pass them, and give them unit spread."""
    factor = max(1, math.ceil(max(images.shape[-2:]) / WORKING_PIXELS))
    small = images[:, None]
    if factor > 1:
        height, width = (side // (2 * factor) * 2 * factor for side in images.shape[-2:])
        top, left = (
            (side - kept) // 2 for side, kept in zip(images.shape[-2:], (height, width), strict=True)
        )
        small = functional.avg_pool2d(small[..., top : top + height, left : left + width], factor)
    small = small[:, 0]
    pixel = pixel_size_angstrom * factor
    filtered = torch.fft.irfft2(torch.fft.rfft2(small) * band(small.shape[-2:], pixel), s=small.shape[-2:])
    spread = filtered.flatten(1).std(dim=1)[:, None, None].clamp(min=1e-9)
    return (filtered / spread).clamp(-5, 5), pixel


def displacement(
    reference: Tensor, image: Tensor, largest: float, frequencies: Tensor
) -> tuple[NDArray[np.float64], float]:
    """Return by how many pixels (x, y) an image (h, w) lies off its reference, and how sharp that is.

    By phase correlation (Kuglin and Hines 1975) within a band of frequencies: a line across the image, an
    edge of carbon or a filament, slides along itself, and would outweigh all else by its strength. The peak
    within ``largest`` pixels is refined by a parabola along each axis; it is 1 for images that are equal.

    Parameters
    ----------
    frequencies
        Weight of each frequency of rfft2, (h, w // 2 + 1).
    """
    cross = torch.fft.rfft2(reference - reference.mean()).conj() * torch.fft.rfft2(image - image.mean())
    cross = cross / cross.abs().clamp(min=1e-12) * frequencies
    surface = torch.fft.irfft2(cross, s=reference.shape)
    height, width = surface.shape
    highest = float(torch.fft.irfft2(frequencies.to(cross.dtype), s=reference.shape)[0, 0])
    y = torch.fft.fftfreq(height, 1 / height)[:, None]
    x = torch.fft.fftfreq(width, 1 / width)[None]
    allowed = torch.where(torch.hypot(y, x) <= largest, surface, torch.full_like(surface, -torch.inf))
    row, column = divmod(int(allowed.argmax()), width)
    peak = []
    for index, side, line in ((column, width, surface[row]), (row, height, surface[:, column])):
        below, at, above = (float(line[(index + step) % side]) for step in (-1, 0, 1))
        curvature = below - 2 * at + above
        fraction = 0.5 * (below - above) / curvature if curvature < 0 else 0.0
        peak.append((index + side // 2) % side - side // 2 + max(-0.5, min(0.5, fraction)))
    return np.array(peak), float(surface[row, column]) / max(highest, 1e-12)


def _axes(z_rot_degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return unit vectors (x, y) of an image across and along its tilt axis."""
    across, along = rotation_z(z_rot_degrees)[:2, :2].T
    return across, along


def _squeeze(z_rot_degrees: float, ratio: float) -> NDArray[np.float64]:
    """Return the matrix that squeezes an image's (x, y) across its tilt axis."""
    across, along = _axes(z_rot_degrees)
    return np.asarray(ratio * np.outer(across, across) + np.outer(along, along))


def chained(
    images: Tensor, geometry: TiltGeometry, pixel_size_angstrom: float
) -> tuple[TiltGeometry, NDArray[np.float64]]:
    """Chain the images together by correlating neighbours, from the lowest tilt outwards.

    Returns
    -------
    tuple[TiltGeometry, NDArray[np.float64]]
        With new shifts; and the correlation of each image with the one it was aligned to, (n,).
    """
    order = np.argsort(geometry.y_tilt_degrees, kind="stable")
    start = int(np.argmin(np.abs(geometry.y_tilt_degrees[order])))
    shifts = geometry.shifts_angstrom / pixel_size_angstrom
    cosines = np.cos(np.radians(geometry.y_tilt_degrees))
    window = taper(images.shape[-2:])
    largest = _LARGEST_SHIFT * min(images.shape[-2:])
    correlations = np.ones(len(geometry))
    frequencies = band(images.shape[-2:], pixel_size_angstrom)
    for direction in (1, -1):
        chain = order[start:] if direction == 1 else order[start::-1]
        for near, far in itertools.pairwise(chain):
            squeeze = _squeeze(float(geometry.z_rot_degrees[far]), cosines[far] / cosines[near])
            reference = sampled(images[near], np.eye(2), shifts[near]) * window
            image = sampled(images[far], squeeze, shifts[far]) * window
            moved, correlations[far] = displacement(reference, image, largest, frequencies)
            shifts[far] += squeeze @ moved
    return geometry.shifted(shifts * pixel_size_angstrom), correlations


def refined_axis(
    images: Tensor, geometry: TiltGeometry, pixel_size_angstrom: float, stated_degrees: float
) -> NDArray[np.float64]:
    """Return the angle of the tilt axis, one for all images, at which they agree on their common line.

    The line of every image's Fourier transform along the tilt axis is that of the specimen: the images'
    sums across the axis are the same. Their phases are compared, as their amplitudes are of a few strong
    things alone. It is looked for within `AXIS_RANGE_DEGREES` of the stated angle; a best one at the end of
    that range is none, and the stated one is kept.
    """
    shifts = geometry.shifts_angstrom / pixel_size_angstrom
    window = taper(images.shape[-2:])
    usable = [n for n in range(len(geometry)) if abs(geometry.y_tilt_degrees[n]) < _AXIS_TILTS_DEGREES]
    prepared = [sampled(images[n], np.eye(2), shifts[n]) * window for n in usable]
    cosines = np.cos(np.radians(geometry.y_tilt_degrees[usable]))

    def agreement(angle: float) -> float:
        across, along = _axes(angle)
        lines = []
        for cosine, image in zip(cosines, prepared, strict=True):
            # Squeezed by its cosine each image sums over the same piece of the specimen.
            line = sampled(image, np.stack([across * cosine, along], axis=1), np.zeros(2)).sum(dim=1)
            spectrum = torch.fft.rfft(line - line.mean())[_AXIS_BAND[0] : _AXIS_BAND[1]]
            phases = torch.view_as_real(spectrum / spectrum.abs().clamp(min=1e-6)).flatten()
            lines.append(phases / phases.norm())
        total = torch.stack(lines).sum(dim=0)
        return float((total @ total - len(lines)) / (len(lines) * (len(lines) - 1)))

    steps = np.arange(-AXIS_RANGE_DEGREES, AXIS_RANGE_DEGREES + _AXIS_STEP_DEGREES / 2, _AXIS_STEP_DEGREES)
    scores = np.array([agreement(stated_degrees + float(step)) for step in steps])
    best = int(scores.argmax())
    # At the end of the range something else than the axis was found: an edge, or a line across the image.
    if best in (0, len(steps) - 1):
        return np.full(len(geometry), stated_degrees)
    # A parabola through what lies about the best: the peak is a degree or two wide.
    near = slice(max(0, best - 2), best + 3)
    a, b, _ = np.polyfit(steps[near] - steps[best], scores[near], 2)
    peak = steps[best] + (float(np.clip(-b / (2 * a), -1, 1)) if a < 0 else 0.0)
    return np.full(len(geometry), stated_degrees + float(peak))


def centred(geometry: TiltGeometry) -> TiltGeometry:
    """Move the specimen within its plane so that the images' middles lie about its own."""
    matrices = geometry.matrices()[:, :, :2]
    shifts = geometry.shifts_angstrom
    move, *_ = np.linalg.lstsq(matrices.reshape(-1, 2), shifts.reshape(-1), rcond=None)
    return geometry.shifted(shifts - matrices @ move)


def shift_error(found: TiltGeometry, true: TiltGeometry) -> float:
    """Return the rms difference in angstrom between two alignments' shifts, a common displacement apart.

    A specimen moved as a whole by t changes every shift by ``R t`` and nothing else: the t that explains
    most is taken away first.
    """
    difference = found.shifts_angstrom - true.shifts_angstrom
    matrices = true.matrices()
    move, *_ = np.linalg.lstsq(matrices.reshape(-1, 3), difference.reshape(-1), rcond=None)
    left = difference - matrices @ move
    return float(np.sqrt((left**2).sum(axis=1).mean()))
