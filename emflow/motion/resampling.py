"""Frames resampled where the specimen stood, as Fourier transforms, and these turned back into images."""

import math

import numpy as np
import torch
from torch import Tensor

from emflow.motion.field import MotionField, degrees_of_basis

# Below this a frame counts as moved as a whole, and is shifted in Fourier space without loss.
_RIGID_PIXELS = 0.02


def keys_transfer(frequency: Tensor) -> Tensor:
    """Return the Fourier transform of the cubic kernel that torch interpolates with, at cycles per pixel.

    Keys, IEEE Trans. ASSP 29 (1981) 1153, with a = -0.75, by Simpson's rule over its support.
    """
    a = -0.75
    x = torch.linspace(0, 2, 401, dtype=torch.float64)
    inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
    outer = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    kernel = torch.where(x <= 1, inner, outer)
    weight = torch.full_like(x, 2.0)
    weight[1::2] = 4.0
    weight[[0, -1]] = 1.0
    weight *= (x[1] - x[0]) / 3
    angle = 2 * math.pi * frequency.double()[..., None] * x
    transfer: Tensor = (2 * torch.cos(angle) * kernel * weight).sum(-1).to(frequency.dtype)
    return transfer


class FrameResampler:
    """Resamples frames of one shape by a motion field; gives their Fourier transforms."""

    def __init__(self, field: MotionField, device: torch.device) -> None:
        self._field, self._device = field, device
        height, width = field.shape
        self._k_y = torch.fft.fftfreq(height, device=device)
        self._k_x = torch.fft.rfftfreq(width, device=device)
        # What interpolation takes on average, given back; not without limit, or noise would be blown up.
        self._sharpen_y = 1 / keys_transfer(self._k_y.cpu()).clamp(min=0.5).to(device)
        self._sharpen_x = 1 / keys_transfer(self._k_x.cpu()).clamp(min=0.5).to(device)
        self._pixels_y = torch.linspace(-1, 1, height, device=device)[:, None]
        self._pixels_x = torch.linspace(-1, 1, width, device=device)[None, :]
        degrees = degrees_of_basis(field.degree)
        legendre = np.polynomial.legendre.legvander
        along = [legendre(2 * np.arange(side) / side - 1, field.degree) for side in field.shape]
        # The field at (y, x) is along_y[y] @ square @ along_x[x]: exact, and cheaper than interpolation.
        square = np.zeros((field.frames, 2, field.degree + 1, field.degree + 1))
        for term, (power_y, power_x) in enumerate(degrees):
            square[:, :, power_y, power_x] = field.coefficients[:, term]
        self._along_y, self._along_x = (torch.from_numpy(values).float().to(device) for values in along)
        self._square = torch.from_numpy(square).float().to(device)
        corners = np.array([[0, 0], [0, width], [height, 0], [height, width], [height / 2, width / 2]])
        shifts = field.displacement(corners)
        self._mean = shifts.mean(1)
        self._local = np.abs(shifts - self._mean[:, None]).max((1, 2))

    def transform(self, frame: Tensor, number: int) -> Tensor:
        """Return the Fourier transform (h, w//2+1) of a frame (h, w), the specimen moved back."""
        if self._local[number] < _RIGID_PIXELS:
            spectrum: Tensor = torch.fft.rfft2(frame)
            y, x = (float(value) for value in self._mean[number])
            if y or x:
                one = torch.ones((), device=self._device)
                spectrum = spectrum * torch.polar(one, 2 * math.pi * y * self._k_y)[:, None]
                spectrum *= torch.polar(one, 2 * math.pi * x * self._k_x)
            return spectrum
        height, width = self._field.shape
        # grid_sample: x first, in units of half the image, -1 and 1 at the outermost pixels' centres
        grid = torch.empty((height, width, 2), device=self._device)
        for axis, (side, pixels) in enumerate(((height, self._pixels_y), (width, self._pixels_x))):
            dense = self._along_y @ (self._square[number, axis] @ self._along_x.T)
            torch.add(pixels, dense, alpha=2 / (side - 1), out=grid[..., 1 - axis])
        sampled = torch.nn.functional.grid_sample(
            frame[None, None], grid[None], mode="bicubic", padding_mode="reflection", align_corners=True
        )
        spectrum = torch.fft.rfft2(sampled[0, 0])
        spectrum *= self._sharpen_y[:, None]
        spectrum *= self._sharpen_x
        return spectrum


def cropped_inverse(spectrum: Tensor, shape: tuple[int, int], out_shape: tuple[int, int]) -> Tensor:
    """Return the image of even sides ``out_shape`` of a transform (h, w//2+1) of ``shape``, the mean kept."""
    if out_shape == shape:
        whole: Tensor = torch.fft.irfft2(spectrum, s=shape)
        return whole
    rows, columns = min(shape[0], out_shape[0]) // 2, min(shape[1], out_shape[1]) // 2
    cropped = torch.zeros((out_shape[0], out_shape[1] // 2 + 1), dtype=spectrum.dtype, device=spectrum.device)
    cropped[:rows, :columns] = spectrum[:rows, :columns]
    cropped[out_shape[0] - rows + 1 :, :columns] = spectrum[shape[0] - rows + 1 :, :columns]
    result: Tensor = torch.fft.irfft2(cropped, s=out_shape) * (math.prod(out_shape) / math.prod(shape))
    return result
