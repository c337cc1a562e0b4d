"""Alignment of tilt series without fiducials: shifts and the tilt axis, in RELION 5's convention.

Three steps, each starting from the last one's answer. Neighbours are correlated from the lowest tilt
outwards, the further tilted one stretched by the cosines (Guckenberger 1982). The tilt axis is where all
images agree on their common line. Then each image is compared with the projection of the tomogram of all
others, until the shifts stand still (projection matching; Dengler 1989).
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from emflow.reconstruction import project, ramp_filter, reconstruct_slab, tilt_weights
from emflow.tilt_geometry import TiltGeometry

# Sides that images are brought down to for the alignment; a peak is found to a tenth of a pixel.
WORKING_PIXELS = 256
_LARGEST_SHIFT = 0.18  # of the image's side, between neighbours
_AXIS_RANGE_DEGREES = 5.0
_MATCHING_ROUNDS = 4
_MATCHING_SHIFT_PIXELS = 6.0


@dataclass(frozen=True)
class Alignment:
    """What an alignment found: the geometry, and per image how well it agrees with the others.

    ``correlation`` (n,) is that of each image with the projection of the others' tomogram;
    ``residual_angstrom`` (n,) how far its shift still moved in the last round.
    """

    geometry: TiltGeometry
    correlation: NDArray[np.float64]
    residual_angstrom: NDArray[np.float64]


def align(
    images: Tensor,
    geometry: TiltGeometry,
    pixel_size_angstrom: float,
    *,
    thickness_angstrom: float = 2000.0,
    refine_axis: bool = True,
    projection_matching: bool = True,
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
    thickness_angstrom
        Of the tomogram that projections are matched with.

    Returns
    -------
    Alignment
        Tilts are as given; the mean position of the images' middles is the specimen's middle.
    """
    working, pixel = _working_images(images, pixel_size_angstrom)
    geometry = coarse_shifts(working, geometry, pixel)
    if refine_axis:
        for _ in range(2):
            geometry = replace(geometry, z_rot_degrees=refined_axis(working, geometry, pixel))
            geometry = coarse_shifts(working, geometry, pixel)
    geometry = centred(geometry)
    residual = np.zeros(len(geometry))
    depth = max(8, 2 * round(thickness_angstrom / pixel / 2))
    correlation = match_projections(working, geometry, pixel, depth, shift_pixels=0.0)[1]
    if projection_matching:
        best = geometry, correlation
        for round_ in range(_MATCHING_ROUNDS):
            # Later rounds look less far, and at finer detail.
            reach = max(2.0, _MATCHING_SHIFT_PIXELS / (1 + round_))
            moved, correlation, residual = _matched(working, geometry, pixel, depth, reach)
            geometry = centred(moved)
            if correlation.mean() > best[1].mean():
                best = geometry, correlation
            if np.median(residual) < 0.05 * pixel:
                break
        geometry, correlation = best
    return Alignment(geometry, correlation, residual)


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
    filtered = torch.fft.irfft2(torch.fft.rfft2(small) * _band(small.shape[-2:], pixel), s=small.shape[-2:])
    spread = filtered.flatten(1).std(dim=1)[:, None, None].clamp(min=1e-9)
    return (filtered / spread).clamp(-5, 5), pixel


def _band(shape: "torch.Size | tuple[int, int]", pixel: float) -> Tensor:
    """Return a band-pass over rfft2's frequencies, from a fifth of the image to 80 A."""
    ky = torch.fft.fftfreq(shape[0])[:, None]
    kx = torch.fft.rfftfreq(shape[1])[None]
    k = torch.hypot(ky, kx)
    low = 1 - torch.exp(-((k * min(shape) / 4) ** 2))
    finest = min(0.25, pixel / 80.0)
    return low * torch.exp(-((k / finest) ** 2) / 2)


def _taper(shape: "torch.Size | tuple[int, int]", margin: float = 0.1) -> Tensor:
    sides = []
    for side in shape:
        edge = torch.linspace(0, 1, side + 2)[1:-1]
        sides.append((torch.minimum(edge, 1 - edge) / margin).clamp(max=1) * math.pi / 2)
    return torch.sin(sides[0])[:, None] ** 2 * torch.sin(sides[1])[None] ** 2


def _sampled(image: Tensor, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Tensor:
    """Return an image (h, w) read at ``matrix @ (x, y) + offset``, pixels from its centre; 0 outside."""
    height, width = image.shape
    y = torch.arange(height, dtype=torch.float32)[:, None] - height // 2
    x = torch.arange(width, dtype=torch.float32)[None] - width // 2
    position = [
        ((float(row[0]) * x + float(row[1]) * y + float(shift) + side // 2) * (2 / (side - 1)) - 1)
        for row, shift, side in zip(matrix, offset, (width, height), strict=True)
    ]
    grid = torch.stack(position, dim=-1)[None]
    return functional.grid_sample(image[None, None], grid, align_corners=True, padding_mode="zeros")[0, 0]


def displacement(reference: Tensor, image: Tensor, largest: float) -> tuple[NDArray[np.float64], float]:
    """Return by how many pixels (x, y) an image (h, w) lies off its reference, and their correlation there.

    The peak of the cross-correlation within ``largest`` pixels, refined by a parabola along each axis.
    """
    spectra = [torch.fft.rfft2(each - each.mean()) for each in (reference, image)]
    surface = torch.fft.irfft2(spectra[0].conj() * spectra[1], s=reference.shape)
    norm = float((reference - reference.mean()).norm() * (image - image.mean()).norm())
    height, width = surface.shape
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
    return np.array(peak), float(surface[row, column]) / max(norm, 1e-9)


def _axes(z_rot_degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return unit vectors (x, y) of an image across and along its tilt axis."""
    angle = math.radians(z_rot_degrees)
    return np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])


def coarse_shifts(images: Tensor, geometry: TiltGeometry, pixel_size_angstrom: float) -> TiltGeometry:
    """Chain the images together by correlating neighbours, from the lowest tilt outwards."""
    order = np.argsort(geometry.y_tilt_degrees, kind="stable")
    start = int(np.argmin(np.abs(geometry.y_tilt_degrees[order])))
    shifts = geometry.shifts_angstrom / pixel_size_angstrom
    cosines = np.cos(np.radians(geometry.y_tilt_degrees))
    taper = _taper(images.shape[-2:])
    largest = _LARGEST_SHIFT * min(images.shape[-2:])
    for direction in (1, -1):
        chain = order[start:] if direction == 1 else order[start::-1]
        for near, far in itertools.pairwise(chain):
            across, along = _axes(float(geometry.z_rot_degrees[far]))
            ratio = cosines[far] / cosines[near]
            squeeze = ratio * np.outer(across, across) + np.outer(along, along)
            reference = _sampled(images[near], np.eye(2), shifts[near]) * taper
            image = _sampled(images[far], squeeze, shifts[far]) * taper
            moved, _ = displacement(reference, image, largest)
            shifts[far] += squeeze @ moved
    return geometry.shifted(shifts * pixel_size_angstrom)


def refined_axis(images: Tensor, geometry: TiltGeometry, pixel_size_angstrom: float) -> NDArray[np.float64]:
    """Return the angle of the tilt axis, one for all images, at which they agree on their common line.

    The line of every image's Fourier transform along the tilt axis is that of the specimen: the images'
    sums across the axis are the same. It is looked for within 5 degrees.
    """
    shifts = geometry.shifts_angstrom / pixel_size_angstrom
    taper = _taper(images.shape[-2:], margin=0.3)
    height, width = images.shape[-2:]
    span = min(height, width)
    y = torch.arange(span, dtype=torch.float32) - span // 2
    usable = [n for n in range(len(geometry)) if abs(geometry.y_tilt_degrees[n]) < 65]
    prepared = [_sampled(images[n], np.eye(2), shifts[n]) * taper for n in usable]
    cosines = np.cos(np.radians(geometry.y_tilt_degrees))
    middle = float(geometry.z_rot_degrees.mean())

    def agreement(angle: float) -> float:
        across, along = _axes(angle)
        lines = []
        for n, image in zip(usable, prepared, strict=True):
            # Squeezed by its cosine each image sums over the same piece of the specimen.
            matrix = np.stack([across * cosines[n], along], axis=1)
            turned = _sampled(image, matrix, np.zeros(2))
            line = turned.sum(dim=1)
            line = line - line.mean()
            lines.append(line / line.norm().clamp(min=1e-9))
        stacked = torch.stack(lines)
        total = stacked.sum(dim=0)
        count = len(lines)
        return float((total @ total - count) / (count * (count - 1)))

    del y
    step, best = 1.0, middle
    scores: dict[float, float] = {}
    candidates = [middle + d for d in np.arange(-_AXIS_RANGE_DEGREES, _AXIS_RANGE_DEGREES + 0.5, step)]
    for _ in range(4):
        for candidate in candidates:
            scores.setdefault(round(float(candidate), 4), agreement(float(candidate)))
        best = max(scores, key=lambda angle: scores[angle])
        step /= 2.5
        candidates = [best - 2 * step, best - step, best + step, best + 2 * step]
    return geometry.z_rot_degrees + (best - middle)


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


def match_projections(
    images: Tensor,
    geometry: TiltGeometry,
    pixel_size_angstrom: float,
    depth: int,
    *,
    shift_pixels: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare each image with the projection of the tomogram of all others.

    Parameters
    ----------
    depth
        Slices of that tomogram.
    shift_pixels
        How far a shift is looked for.

    Returns
    -------
    tuple[NDArray[np.float64], NDArray[np.float64]]
        By how many pixels (n, 2), as (x, y), each image lies off, and its correlation there (n,).
    """
    height, width = images.shape[-2:]
    taper = _taper((height, width))
    filtered = ramp_filter(images, geometry)
    volume = reconstruct_slab(filtered, geometry, pixel_size_angstrom, (depth, height, width), 0, depth)
    projections = project(volume, geometry, pixel_size_angstrom, (height, width)) / pixel_size_angstrom
    # What an image itself has put along its rays comes back as itself, times the path: taken away, or every
    # image would best agree with where it is.
    path = depth / np.cos(np.radians(geometry.y_tilt_degrees))
    own = filtered * torch.from_numpy(path).float()[:, None, None]
    band = _band((height, width), pixel_size_angstrom)
    moves, correlations = [], []
    for projection, image in zip(projections - own, images, strict=True):
        smooth = torch.fft.irfft2(torch.fft.rfft2(projection) * band, s=(height, width))
        moved, correlation = displacement(smooth * taper, image * taper, shift_pixels)
        moves.append(moved)
        correlations.append(correlation)
    return np.array(moves), np.array(correlations)


def _matched(
    images: Tensor, geometry: TiltGeometry, pixel: float, depth: int, reach: float
) -> tuple[TiltGeometry, NDArray[np.float64], NDArray[np.float64]]:
    moves, correlation = match_projections(images, geometry, pixel, depth, shift_pixels=reach)
    # A single image that disagrees wildly does not pull the others with it.
    shifts = geometry.shifts_angstrom + moves * pixel
    residual = np.hypot(*moves.T) * pixel
    return geometry.shifted(shifts), correlation, residual


__all__ = [
    "Alignment",
    "align",
    "centred",
    "coarse_shifts",
    "displacement",
    "match_projections",
    "refined_axis",
    "shift_error",
    "tilt_weights",
]
