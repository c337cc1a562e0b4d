"""Random fields and outlines that scenes are made of."""

import math

import numpy as np
import torch
from numpy.typing import NDArray


def _blur_matrix(rng: np.random.Generator, size: int, sigma_pixels: float) -> torch.Tensor:
    """Return a matrix (size, nodes) of Gaussians about nodes one sigma apart; its rows have unit length."""
    nodes = np.arange(math.ceil(size / sigma_pixels) + 7) - 3 + rng.random()
    distance = (np.arange(size) / sigma_pixels)[:, None] - nodes[None, :]
    matrix = np.exp(-0.5 * distance**2)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return torch.from_numpy(matrix.astype(np.float32))


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], length_pixels: float
) -> NDArray[np.float32]:
    """Return a Gaussian random field: float32 (h, w), mean 0 and deviation 1 at every pixel.

    Its correlation falls to 1/e at about ``length_pixels``: white noise under a Gaussian of half that
    deviation.
    """
    sigma = max(length_pixels / 2, 1.0)
    rows, columns = _blur_matrix(rng, shape[0], sigma), _blur_matrix(rng, shape[1], sigma)
    noise = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    # By torch, whose threads a training run has under control, unlike those of numpy's BLAS.
    return np.asarray((rows @ torch.from_numpy(noise) @ columns.T).numpy(), dtype=np.float32)


def window(
    shape: tuple[int, int], centre_yx: tuple[float, float], radius: float
) -> tuple[slice, slice] | None:
    """Return the part of an image within a square of half-side ``radius``, or None when outside."""
    top, bottom = (
        max(0, math.floor(centre_yx[0] - radius)),
        min(shape[0], math.ceil(centre_yx[0] + radius) + 1),
    )
    left, right = (
        max(0, math.floor(centre_yx[1] - radius)),
        min(shape[1], math.ceil(centre_yx[1] + radius) + 1),
    )
    if bottom - top < 2 or right - left < 2:
        return None
    return slice(top, bottom), slice(left, right)


def offsets(
    part: tuple[slice, slice], centre_yx: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return y (h, 1) and x (1, w) of a part of an image, from a centre."""
    y = np.arange(part[0].start, part[0].stop, dtype=np.float32)[:, None] - np.float32(centre_yx[0])
    x = np.arange(part[1].start, part[1].stop, dtype=np.float32)[None, :] - np.float32(centre_yx[1])
    return y, x


def rough_outline(
    rng: np.random.Generator,
    y: NDArray[np.float32],
    x: NDArray[np.float32],
    radius: float,
    *,
    corners: int,
    roughness: float,
) -> NDArray[np.float32]:
    """Return the depth inside a rough polygon about the origin, in pixels: positive inside, float32 (h, w).

    ``corners`` of a regular polygon, 0 for a disc; ``roughness`` is the outline's wandering over the radius.
    """
    angle = np.arctan2(y, x, dtype=np.float32)
    reach = np.full(angle.shape, radius, dtype=np.float32)
    if corners:
        sector = 2 * math.pi / corners
        turned = np.mod(angle + np.float32(rng.random() * sector), np.float32(sector)) - np.float32(
            sector / 2
        )
        reach *= math.cos(sector / 2) / np.cos(turned)
    for wave in range(2, 7):
        size = roughness * float(rng.standard_normal()) / wave**0.7
        reach *= 1 + np.float32(size) * np.cos(wave * angle + np.float32(rng.random() * 2 * math.pi))
    return np.asarray(reach - np.sqrt(x * x + y * y), dtype=np.float32)


def edge(depth: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Return a smooth step: 0 where the depth is below 0, 1 where above ``width``."""
    t = np.clip(depth * np.float32(1 / max(width, 1e-3)), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)
