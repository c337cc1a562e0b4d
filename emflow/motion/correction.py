"""Undo motion: each frame resampled where the specimen stood, weighted by what damage left, and summed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emflow.motion.dose import damage_amplitude
from emflow.motion.field import MotionField, degrees_of_basis

# Below this a frame counts as moved as a whole, and is shifted in Fourier space without loss.
_RIGID_PIXELS = 0.02


@dataclass(frozen=True)
class CorrectedMovie:
    """Sums of a movie's frames (h, w) float32, on the first frame's grid.

    ``weighted`` is weighted by exposure, or equal to the plain sum where no exposure was given; ``even`` and
    ``odd`` are its parts of frames 0, 2, ... and 1, 3, ..., ``plain`` the unweighted sum, if asked for.
    """

    weighted: NDArray[np.float32]
    plain: NDArray[np.float32] | None
    even: NDArray[np.float32] | None
    odd: NDArray[np.float32] | None


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
                spectrum = spectrum * torch.polar(torch.ones(()), 2 * math.pi * y * self._k_y)[:, None]
                spectrum *= torch.polar(torch.ones(()), 2 * math.pi * x * self._k_x)
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


def correct_frames(
    frames: Iterable[Tensor],
    field: MotionField,
    *,
    pixel_size_angstrom: float,
    exposure_electrons_per_square_angstrom: float | None = None,
    first_exposure_electrons_per_square_angstrom: float = 0.0,
    voltage_kilovolt: float = 300.0,
    out_shape: tuple[int, int] | None = None,
    plain: bool = False,
    halves_shape: tuple[int, int] | None = None,
) -> CorrectedMovie:
    """Sum frames (h, w) float32 in the order of ``field``, motion undone.

    Weighted sums follow Grant and Grigorieff, eLife 4 (2015) e06980, eq. 9: each frequency of each frame
    weighs what is left of its amplitude, and the sum is divided by the root of the squared weights' sum, so
    that noise stays white. Its mean is that of the plain sum.

    Parameters
    ----------
    exposure_electrons_per_square_angstrom, first_exposure_electrons_per_square_angstrom
        Of a frame, and before the first; None sums without weights.
    out_shape
        Even (h, w) of the sums, cropped in Fourier space; None leaves the frames' own.
    plain
        Whether to give the unweighted sum too.
    halves_shape
        Even (h, w) of the sums of even and of odd frames; None leaves them out.
    """
    resampler: FrameResampler | None = None
    total: list[Tensor | None] = [None, None]
    unweighted: Tensor | None = None
    squares: Tensor | None = None
    frequency: NDArray[np.float64] | None = None
    height, width = field.shape
    count = 0
    for number, frame in enumerate(frames):
        if resampler is None:
            resampler = FrameResampler(field, frame.device)
        spectrum = resampler.transform(frame, number)
        count += 1
        if plain:
            unweighted = spectrum.clone() if unweighted is None else unweighted.add_(spectrum)
        if exposure_electrons_per_square_angstrom is not None:
            if frequency is None:
                k_y, k_x = np.fft.fftfreq(height), np.fft.rfftfreq(width)
                frequency = np.hypot(k_y[:, None], k_x[None, :]) / pixel_size_angstrom
                # The weight is a smooth function of frequency: looked up, not computed for every pixel.
                index = torch.from_numpy(np.rint(frequency / frequency.max() * 4095).astype(np.int64))
                index = index.to(frame.device)
                table = np.arange(4096) / 4095 * frequency.max()
            exposure = first_exposure_electrons_per_square_angstrom
            exposure += (number + 0.5) * exposure_electrons_per_square_angstrom
            weights = torch.from_numpy(damage_amplitude(table, exposure, voltage_kilovolt)).to(frame.device)
            weights[0] = 1
            weight = weights[index]
            spectrum *= weight
            squares = weights**2 if squares is None else squares + weights**2
        half = number % 2 if halves_shape is not None else 0
        part = total[half]
        total[half] = spectrum if part is None else part.add_(spectrum)
    if total[0] is None:
        raise ValueError("there are no frames to sum")
    if squares is not None:
        scale = (count / squares).sqrt()
        scale[0] = 1
        total = [None if part is None else part * scale[index] for part in total]

    parts = [part for part in total if part is not None]
    whole = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    even = odd = None
    if halves_shape is not None:
        even, odd = (None if part is None else _inverse(part, field.shape, halves_shape) for part in total)
    return CorrectedMovie(
        _inverse(whole, field.shape, out_shape),
        None if unweighted is None else _inverse(unweighted, field.shape, out_shape),
        even,
        odd,
    )


def _inverse(
    spectrum: Tensor, shape: tuple[int, int], out_shape: tuple[int, int] | None
) -> NDArray[np.float32]:
    if out_shape is None or out_shape == shape:
        result = torch.fft.irfft2(spectrum, s=shape)
    else:
        rows, columns = min(shape[0], out_shape[0]) // 2, min(shape[1], out_shape[1]) // 2
        cropped = torch.zeros(
            (out_shape[0], out_shape[1] // 2 + 1), dtype=spectrum.dtype, device=spectrum.device
        )
        cropped[:rows, :columns] = spectrum[:rows, :columns]
        cropped[out_shape[0] - rows + 1 :, :columns] = spectrum[shape[0] - rows + 1 :, :columns]
        result = torch.fft.irfft2(cropped, s=out_shape) * (math.prod(out_shape) / math.prod(shape))
    image: NDArray[np.float32] = result.cpu().numpy().astype(np.float32, copy=False)
    return image
