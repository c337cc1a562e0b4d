"""Alignment of tilt series by patches: each has a depth, and all pairs of images near in tilt are compared.

Correlating whole images takes a thick specimen for a sheet: what lies above or below its middle moves
across the tilt axis from image to image, and a line of it, an edge of carbon or a filament, seems to slide
along itself. Here the specimen's plane is cut into patches, each with a depth of its own, as in patch
tracking (Mastronarde and Held 2017). Shifts, depths and the tilt axis are those at which the phase
correlations of all pairs of patches, read at where the geometry puts them, add up to most: no single
correlation has to have its peak in the right place. Pairs are compared in the frequencies that a slab of the
specimen's thickness leaves in common.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from emflow.tilt_geometry import TiltGeometry, rotation_z
from emflow.tilt_sampling import band, sampled

PATCH_PIXELS = 64
# Middles of patches lie at most so far apart, nearer in small images: five a side at least.
_STEP_PIXELS = 32
_STEP_SHARE = 8
# Part of a patch's weight that must lie inside an image for it to count.
_LEAST_INSIDE = 0.7
# Depths and shifts are not told apart from a specimen that lies elsewhere: both are kept small, in pixels.
_DEPTH_PIXELS = 30.0
_SHIFT_PIXELS = 20.0
# An angle of so many radians weighs in the search as a pixel does.
_RADIANS = 0.01


@dataclass(frozen=True)
class Round:
    """One look: pairs up to ``span_degrees`` apart, moved by up to ``reach`` pixels, blurred by ``blur``."""

    span_degrees: float
    reach: int
    blur: float


ROUNDS = (Round(12, 6, 1.5), Round(20, 4, 1.0), Round(25, 3, 0.7), Round(30, 3, 0.7))


@dataclass(frozen=True)
class _Patches:
    """Phases (n, patches, h, w // 2 + 1) of the patches of every image, and where they were cut.

    ``places`` (patches, 2) are their middles (x, y) in the specimen's plane from its centre, ``depths``
    (patches,) in pixels what is known of them, and ``moved`` (n, patches) by how many whole pixels across the
    axis each was cut elsewhere for it; ``inside`` (n, patches) whether enough of it is on the image.
    """

    phases: Tensor
    places: Tensor
    depths: Tensor
    moved: Tensor
    inside: Tensor


@dataclass(frozen=True)
class _Surfaces:
    """Correlations (m, side, side) of pairs of patches, and whose they are, (m,) each."""

    values: Tensor
    first: Tensor
    second: Tensor
    patch: Tensor


def align_patches(
    images: Tensor,
    geometry: TiltGeometry,
    pixel_size_angstrom: float,
    *,
    refine_axis: bool = True,
    specimen_angstrom: float = 900.0,
) -> TiltGeometry:
    """Refine the shifts, and the angle of the tilt axis, of a series that is aligned within some pixels.

    Parameters
    ----------
    images
        Shape (n, h, w), mean 0, of unit spread.
    geometry
        To start from, of one tilt axis for all images.
    pixel_size_angstrom
        Of the images.
    specimen_angstrom
        The specimen's thickness, roughly.

    Returns
    -------
    TiltGeometry
        The geometry as it came, when the images are narrower than two patches.
    """
    if min(images.shape[-2:]) < 2 * PATCH_PIXELS:
        return geometry
    order = np.argsort(geometry.y_tilt_degrees, kind="stable")
    ordered, sorted_images = geometry.select(order), images[torch.from_numpy(order)]
    depths = None
    thickness = specimen_angstrom / pixel_size_angstrom
    for one in ROUNDS:
        patches = _cut(sorted_images, ordered, pixel_size_angstrom, depths)
        surfaces = _correlated(patches, ordered, pixel_size_angstrom, thickness, one)
        if surfaces is None:
            return geometry
        ordered, depths = _fitted(patches, surfaces, ordered, pixel_size_angstrom, one, refine_axis)
    return ordered.select(np.argsort(order))


def _middles(side: int) -> range:
    step = min(_STEP_PIXELS, side // _STEP_SHARE)
    return range(PATCH_PIXELS // 2, side - PATCH_PIXELS // 2 + 1, step)


def _in_plane(geometry: TiltGeometry) -> NDArray[np.float64]:
    """Return the rotation (2, 2) from the specimen's plane, its y along the tilt axis, to the images."""
    return rotation_z(float(geometry.z_rot_degrees.mean()))[:2, :2]


def _cut(images: Tensor, geometry: TiltGeometry, pixel: float, depths: Tensor | None) -> _Patches:
    """Cut patches out of images (n, h, w) that are brought into the specimen's plane."""
    height, width = images.shape[-2:]
    half = PATCH_PIXELS // 2
    tilts = np.radians(geometry.y_tilt_degrees)
    shifts = geometry.shifts_angstrom / pixel
    edge = torch.hann_window(PATCH_PIXELS + 2, periodic=False)[1:-1]
    window = edge[:, None] * edge[None]
    middles = [(x, y) for y in _middles(height) for x in _middles(width)]
    places = torch.tensor(middles, dtype=torch.float32) - torch.tensor([width // 2, height // 2])
    depths = torch.zeros(len(middles)) if depths is None else depths
    moved = torch.round(depths[None] * torch.tan(torch.from_numpy(tilts).float())[:, None])
    phases = torch.zeros(len(images), len(middles), PATCH_PIXELS, half + 1, dtype=torch.complex64)
    inside = torch.zeros(len(images), len(middles), dtype=torch.bool)
    everywhere, enough = torch.ones(height, width), _LEAST_INSIDE * window.sum()
    plane = _in_plane(geometry)
    for n, image in enumerate(images):
        matrix = plane @ np.diag([math.cos(tilts[n]), 1.0])
        flat = sampled(image, matrix, shifts[n])
        there = sampled(everywhere, matrix, shifts[n])
        for p, (x, y) in enumerate(middles):
            left = x - half + int(moved[n, p])
            if not 0 <= left <= width - PATCH_PIXELS:
                continue
            part = slice(y - half, y + half), slice(left, left + PATCH_PIXELS)
            inside[n, p] = (there[part] * window).sum() > enough
            if inside[n, p]:
                spectrum = torch.fft.rfft2((flat[part] - flat[part].mean()) * window)
                phases[n, p] = spectrum / spectrum.abs().clamp(min=1e-9)
    return _Patches(phases, places, depths, moved, inside)


def _correlated(
    patches: _Patches, geometry: TiltGeometry, pixel: float, thickness: float, look: Round
) -> _Surfaces | None:
    """Correlate the phases of all pairs of a look; None when no two patches can be compared.

    The specimen's ``thickness`` is in pixels.
    """
    tilts = geometry.y_tilt_degrees
    tangents = np.tan(np.radians(tilts))
    side = 2 * look.reach + 1
    across = torch.fft.rfftfreq(PATCH_PIXELS)[None]
    weight = band((PATCH_PIXELS, PATCH_PIXELS), pixel)
    values, owners = [], []
    for i in range(len(geometry)):
        for j in range(i + 1, len(geometry)):
            if tilts[j] - tilts[i] > look.span_degrees:
                break
            both = torch.nonzero(patches.inside[i] & patches.inside[j])[:, 0]
            # A slab of thickness t has features of |k| < 1 / (t dtan) in common: a Gaussian of that width.
            spread = across * (abs(tangents[j] - tangents[i]) * thickness)
            cross = patches.phases[i, both].conj() * patches.phases[j, both]
            surface = torch.fft.irfft2(
                cross * (weight * torch.exp(-2 * spread**2)), s=(PATCH_PIXELS, PATCH_PIXELS)
            )
            values.append(torch.roll(surface, (look.reach, look.reach), (1, 2))[:, :side, :side])
            owners.append(torch.stack([torch.full_like(both, i), torch.full_like(both, j), both]))
    if not values or sum(map(len, values)) == 0:
        return None
    steps = torch.arange(-3, 4)
    kernel = torch.exp(-((steps / look.blur) ** 2) / 2)
    kernel = kernel / kernel.sum()
    surfaces = torch.cat(values)[:, None]
    surfaces = functional.conv2d(surfaces, kernel[None, None, :, None], padding=(3, 0))
    surfaces = functional.conv2d(surfaces, kernel[None, None, None], padding=(0, 3))
    return _Surfaces(surfaces, *torch.cat(owners, dim=1))


def _fitted(
    patches: _Patches, surfaces: _Surfaces, geometry: TiltGeometry, pixel: float, look: Round, turn: bool
) -> tuple[TiltGeometry, Tensor]:
    """Return the geometry at which the correlations add up to most, and the depths of patches in pixels."""
    tilts = torch.from_numpy(np.radians(geometry.y_tilt_degrees)).float()
    cosines, sines, tangents = torch.cos(tilts), torch.sin(tilts), torch.tan(tilts)
    x, y = patches.places.T
    depths = patches.depths.clone().requires_grad_(True)
    shifts = torch.zeros(len(geometry), 2, requires_grad=True)
    turned = torch.zeros((), requires_grad=turn)
    scale = surfaces.values.detach().abs().amax(dim=(2, 3)).mean().clamp(min=1e-9)

    def off(n: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far the patches of images n lie off where they were cut, across and along the axis."""
        p, angle = surfaces.patch, turned * _RADIANS
        across = depths[p] * tangents[n] - patches.moved[n, p] + (shifts[n, 0] - angle * y[p]) / cosines[n]
        along = angle * (cosines[n] * x[p] + sines[n] * depths[p]) + shifts[n, 1]
        return across, along

    variables = [shifts, depths, *([turned] if turn else [])]
    optimiser = torch.optim.LBFGS(variables, max_iter=60, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        (x_first, y_first), (x_second, y_second) = off(surfaces.first), off(surfaces.second)
        place = torch.stack([x_second - x_first, y_second - y_first], dim=-1)[:, None, None] / look.reach
        agreement = functional.grid_sample(surfaces.values, place, mode="bicubic", align_corners=True)
        total = -agreement.sum() / scale
        total = total + 0.5 * ((depths / _DEPTH_PIXELS) ** 2).sum()
        total = total + 0.5 * ((shifts / _SHIFT_PIXELS) ** 2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    moves = shifts.detach().double().numpy() @ _in_plane(geometry).T
    found = geometry.shifted(geometry.shifts_angstrom + moves * pixel)
    angle = math.degrees(float(turned.detach()) * _RADIANS)
    return replace(found, z_rot_degrees=found.z_rot_degrees + angle), depths.detach()
