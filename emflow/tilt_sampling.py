"""How images of a tilt series are read for their alignment: resampled, band-passed, faded at the edges."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def band(shape: "torch.Size | tuple[int, int]", pixel: float) -> Tensor:
    """Return a band-pass over rfft2's frequencies, from a fifth of the image to 80 A."""
    ky = torch.fft.fftfreq(shape[0])[:, None]
    kx = torch.fft.rfftfreq(shape[1])[None]
    k = torch.hypot(ky, kx)
    low = 1 - torch.exp(-((k * min(shape) / 4) ** 2))
    finest = min(0.25, pixel / 80.0)
    return low * torch.exp(-((k / finest) ** 2) / 2)


def taper(shape: "torch.Size | tuple[int, int]", margin: float = 0.1) -> Tensor:
    """Return a window (h, w) that falls to 0 over a margin, a share of each side."""
    sides = []
    for side in shape:
        edge = torch.linspace(0, 1, side + 2)[1:-1]
        sides.append((torch.minimum(edge, 1 - edge) / margin).clamp(max=1) * math.pi / 2)
    return torch.sin(sides[0])[:, None] ** 2 * torch.sin(sides[1])[None] ** 2


def sampled(image: Tensor, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Tensor:
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
