"""The frequencies of a canvas, kept for all that is done to its Fourier transform."""

from functools import cached_property

import torch


class Frequencies:
    """Of a real Fourier transform of images (h, w), in cycles per pixel: tensors (h, w//2+1) on a device."""

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.shape, self.device = shape, device
        self.y = torch.fft.fftfreq(shape[0], device=device)[:, None]
        self.x = torch.fft.rfftfreq(shape[1], device=device)[None, :]

    @cached_property
    def square(self) -> torch.Tensor:
        """The radius, squared."""
        square: torch.Tensor = self.y**2 + self.x**2
        return square

    @cached_property
    def radius(self) -> torch.Tensor:
        """The distance from the origin."""
        return torch.hypot(self.y, self.x)
