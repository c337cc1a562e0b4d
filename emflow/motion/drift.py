"""A first, robust guess of how a movie drifts as a whole: over all paths on a grid, not one peak a frame."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emflow.motion.patches import window

# A specimen mostly creeps; it may jump, in any frame, with this probability.
_JUMP_PROBABILITY = 0.03


@dataclass(frozen=True)
class Drift:
    """Shifts (frames, 2) as (y, x) in pixels of the images, and their mean variance on an axis."""

    shifts: NDArray[np.float64]
    variance: float


def find_drift(frames: Tensor, *, reach_pixels: float, creep_pixels: float, iterations: int = 8) -> Drift:
    """Find the drift of frames (n, h, w) float32, up to ``reach_pixels`` from its mean.

    In turn each frame's likelihood over a grid of shifts is worked out against the sum of the others where
    they are thought to be, and all paths through these grids are summed over (forward and backward), steps
    of about ``creep_pixels`` a frame being usual and larger ones at the start and now and then.
    """
    count, height, width = frames.shape
    device = frames.device
    taper = torch.outer(window(height)[height // 2], window(width)[width // 2]).to(device)
    taper /= taper.square().mean().sqrt()
    independent = float(1 / (taper**4).mean())
    spectra = torch.fft.rfft2((frames - frames.mean((1, 2), keepdim=True)) * taper, norm="ortho")
    k_y = torch.fft.fftfreq(height, device=device)
    k_x = torch.fft.rfftfreq(width, device=device)
    k = (k_y[:, None] ** 2 + k_x[None, :] ** 2).sqrt()
    rings = 64
    ring = (k * 2 * rings).long().clamp(max=rings)
    # Each pair of opposite frequencies counts once; the lowest hold the illumination, not the specimen.
    weight = torch.full_like(k, 1.0)
    weight[:, 0] = 0.5
    weight[(k < 4 / min(height, width)) | (k > 0.48)] = 0
    in_ring = torch.bincount(ring.ravel(), weight.ravel(), minlength=rings + 1).clamp(min=1e-9)

    def by_ring(values: Tensor) -> Tensor:
        total = torch.bincount(ring.ravel(), (values * weight).ravel(), minlength=rings + 1)
        return (total / in_ring).float()

    power = by_ring(torch.view_as_real(spectra).square().sum(-1).mean(0))
    radius = math.ceil(reach_pixels)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    one, zero = torch.ones((), device=device), torch.zeros((), device=device)
    probe_y = torch.polar(one, 2 * math.pi * offsets[:, None] * k_y)
    probe_x = torch.polar(one, 2 * math.pi * k_x[:, None] * offsets)
    # What neighbours have in common, before anything is aligned
    near = (torch.view_as_real(spectra[1:] * spectra[:-1].conj())[..., 0]).mean(0)
    signal = by_ring(near)
    deviation = power / (in_ring * independent * max(count - 1, 1) / 2).sqrt()
    shifts = np.zeros((count, 2))
    variance = creep_pixels**2
    steps = _step_sizes(count, creep_pixels)
    grid = offsets.double().cpu().numpy()
    for iteration in range(iterations):
        signal = torch.where(signal > 0, signal.clamp(min=0) ** 2 / (signal.clamp(min=0) + deviation), zero)
        noise = (power - signal).clamp(min=1e-3 * float(power.max()))
        damp = torch.exp(-4 * math.pi**2 * k**2 * min(variance, 9.0))
        filtered = 2 * independent * damp * weight * (signal / (noise * (noise + count * signal)))[ring]
        turned = torch.from_numpy(shifts).float().to(device)
        turn_y = torch.polar(one, 2 * math.pi * turned[:, :1] * k_y)
        turn_x = torch.polar(one, 2 * math.pi * turned[:, 1:] * k_x)
        total = torch.zeros_like(spectra[0])
        own = torch.zeros_like(k)
        for frame in range(count):
            aligned = spectra[frame] * turn_y[frame][:, None] * turn_x[frame]
            total += aligned
        found_surfaces = []
        for frame in range(count):
            others = total - spectra[frame] * turn_y[frame][:, None] * turn_x[frame]
            product = others.conj() * spectra[frame] * filtered
            found_surfaces.append(torch.view_as_real(probe_y @ product @ probe_x)[..., 0])
        surfaces = torch.stack(found_surfaces).double().cpu().numpy()
        own = torch.view_as_real(spectra).square().sum(-1).sum(0)
        common = torch.view_as_real(total).square().sum(-1) - own
        signal = by_ring(common) / (count * (count - 1))
        deviation = power / (in_ring * independent * count * (count - 1) / 2).sqrt()
        found, variance = _paths(surfaces, grid, steps)
        found -= found.mean(0)
        change = float(np.abs(found - shifts).max())
        shifts = found
        if iteration and change < 0.05:
            break
    return Drift(shifts, variance)


def _step_sizes(count: int, creep: float) -> NDArray[np.float64]:
    return creep * (1 + 4 / (1 + np.arange(count - 1)))


def _paths(
    surfaces: NDArray[np.float64], grid: NDArray[np.float64], steps: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return the mean position of each frame over all paths, (frames, 2), and its mean variance an axis."""
    count = len(surfaces)
    likelihood = np.exp(surfaces - surfaces.max((1, 2), keepdims=True)) + 1e-30
    distance2 = (grid[:, None] - grid[None, :]) ** 2

    def spread(density: NDArray[np.float64], step: float) -> NDArray[np.float64]:
        result = np.zeros_like(density)
        for sigma, part in ((step, 1 - _JUMP_PROBABILITY), (6 * step + 2, _JUMP_PROBABILITY)):
            kernel = np.exp(-distance2 / (2 * sigma**2))
            kernel /= kernel[len(grid) // 2].sum()
            result += part * (kernel @ density @ kernel)
        return result

    forward = [likelihood[0] / likelihood[0].sum()]
    for frame in range(1, count):
        ahead = likelihood[frame] * spread(forward[-1], float(steps[frame - 1]))
        forward.append(ahead / ahead.sum())
    backward = [np.ones_like(likelihood[0])]
    for frame in range(count - 1, 0, -1):
        back = spread(likelihood[frame] * backward[0], float(steps[frame - 1]))
        backward.insert(0, back / back.sum())
    means, variances = np.empty((count, 2)), np.empty(count)
    for frame in range(count):
        density = forward[frame] * backward[frame]
        density /= density.sum()
        along = density.sum(1), density.sum(0)
        means[frame] = [p @ grid for p in along]
        variances[frame] = np.mean([p @ grid**2 - (p @ grid) ** 2 for p in along])
    return means, float(variances.mean())
