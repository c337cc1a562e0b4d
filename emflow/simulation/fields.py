"""Random numbers and smooth random fields, made on the device that images a scene."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

Device = str | torch.device


class Noise:
    """A scene's random numbers, drawn on a device: a seed gives the same there, and others on another."""

    def __init__(self, seed: int, device: Device = "cpu") -> None:
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        """Return standard normal deviates, float32."""
        return torch.randn(shape, generator=self._generator, device=self.device)

    def poisson(self, mean: torch.Tensor) -> torch.Tensor:
        """Return counts of these means."""
        return torch.poisson(mean, generator=self._generator)


def of_each(values: Iterable[float], device: torch.device) -> torch.Tensor:
    """Return one value of each of ``n`` scenes, float32 (n, 1, 1)."""
    return torch.tensor(list(values), dtype=torch.float32, device=device)[:, None, None]


def _blur_matrix(start: float, size: int, sigma_pixels: float, device: torch.device) -> torch.Tensor:
    """Return a matrix (size, nodes) of Gaussians about nodes one sigma apart; its rows have unit length."""
    count = math.ceil(size / sigma_pixels) + 7
    nodes = torch.arange(count, dtype=torch.float64, device=device) - 3 + start
    pixels = torch.arange(size, dtype=torch.float64, device=device) / sigma_pixels
    matrix = torch.exp(-0.5 * (pixels[:, None] - nodes[None, :]) ** 2)
    return (matrix / torch.sqrt((matrix**2).sum(1, keepdim=True))).float()


def _smooth_field(
    normal: Callable[[int, int], torch.Tensor],
    starts: tuple[float, float],
    shape: tuple[int, int],
    length_pixels: float,
    device: torch.device,
) -> torch.Tensor:
    sigma = max(length_pixels / 2, 1.0)
    rows, columns = (
        _blur_matrix(start, size, sigma, device) for start, size in zip(starts, shape, strict=True)
    )
    return rows @ normal(rows.shape[1], columns.shape[1]) @ columns.T


def smooth_field(noise: Noise, shape: tuple[int, int], length_pixels: float) -> torch.Tensor:
    """Return a Gaussian random field: float32 (h, w), mean 0 and deviation 1 at every pixel.

    Its correlation falls to 1/e at about ``length_pixels``: white noise under a Gaussian of half that
    deviation.
    """
    return _smooth_field(noise.normal, (0.5, 0.5), shape, length_pixels, noise.device)


def smooth_field_of(
    rng: np.random.Generator, shape: tuple[int, int], length_pixels: float
) -> NDArray[np.float32]:
    """Return :func:`smooth_field` of numpy's random numbers, on the CPU."""

    def normal(height: int, width: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((height, width), dtype=np.float32))

    starts = (float(rng.random()), float(rng.random()))
    return np.asarray(_smooth_field(normal, starts, shape, length_pixels, torch.device("cpu")).numpy())
