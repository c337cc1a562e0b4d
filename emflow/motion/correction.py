"""Undo motion: each frame resampled where the specimen stood, weighted by what damage left, and summed."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emflow.ctf_estimation.spectrum import PowerSpectrum
from emflow.motion.dose import damage_amplitude
from emflow.motion.field import MotionField
from emflow.motion.resampling import FrameResampler, cropped_inverse
from emflow.motion.spectrum import GroupedSpectrum
from emflow.motion.sum_grid import SumGrid


@dataclass(frozen=True)
class CorrectedMovie:
    """Sums of a movie's frames (h, w) float32, on the first frame's grid.

    ``weighted`` is weighted by exposure, or equal to the plain sum where no exposure was given; ``even`` and
    ``odd`` are its parts of frames 0, 2, ... and 1, 3, ..., ``plain`` the unweighted sum, ``power`` the mean
    power of unweighted sums of a few frames each, for CTF fits; those that were asked for.
    """

    weighted: NDArray[np.float32]
    plain: NDArray[np.float32] | None
    even: NDArray[np.float32] | None
    odd: NDArray[np.float32] | None
    power: PowerSpectrum | None


def correct_frames(
    frames: Iterable[Tensor],
    field: MotionField,
    *,
    pixel_size_angstrom: float,
    exposure_electrons_per_square_angstrom: float | None = None,
    first_exposure_electrons_per_square_angstrom: float = 0.0,
    voltage_kilovolt: float = 300.0,
    grid: SumGrid | None = None,
    plain: bool = False,
    halves_grid: SumGrid | None = None,
    power_exposure_electrons_per_square_angstrom: float | None = None,
) -> CorrectedMovie:
    """Sum frames (h, w) float32 in the order of ``field``, motion undone.

    Weighted sums follow Grant and Grigorieff, eLife 4 (2015) e06980, eq. 9: each frequency of each frame
    weighs what is left of its amplitude, and the sum is divided by the root of the squared weights' sum, so
    that noise stays white. Its mean is that of the plain sum.

    Parameters
    ----------
    exposure_electrons_per_square_angstrom, first_exposure_electrons_per_square_angstrom
        Of a frame, and before the first; None sums without weights.
    grid
        Of the sums, cropped in Fourier space; None leaves the frames' own.
    plain
        Whether to give the unweighted sum too.
    halves_grid
        Of the sums of even and of odd frames; None leaves them out.
    power_exposure_electrons_per_square_angstrom
        Of a frame, if the mean power of groups of frames is wanted.
    """
    resampler: FrameResampler | None = None
    total: list[Tensor | None] = [None, None]
    unweighted: Tensor | None = None
    power: GroupedSpectrum | None = None
    squares: Tensor | None = None
    table: NDArray[np.float64] | None = None
    height, width = field.shape
    count = 0
    for number, frame in enumerate(frames):
        if resampler is None:
            resampler = FrameResampler(field, frame.device)
            if power_exposure_electrons_per_square_angstrom is not None:
                power = GroupedSpectrum(
                    field.shape,
                    pixel_size_angstrom=pixel_size_angstrom,
                    exposure_electrons_per_square_angstrom=power_exposure_electrons_per_square_angstrom,
                    frames=field.frames,
                    device=frame.device,
                )
        spectrum = resampler.transform(frame, number)
        count += 1
        if power is not None:
            power.add(spectrum)
        if plain:
            unweighted = spectrum.clone() if unweighted is None else unweighted.add_(spectrum)
        if exposure_electrons_per_square_angstrom is not None:
            if table is None:
                # Kept for the next movie where that takes none of the host's memory.
                find = _frequencies if frame.device.type == "cpu" else _kept_frequencies
                index, table = find((height, width), pixel_size_angstrom, frame.device)
            exposure = first_exposure_electrons_per_square_angstrom
            exposure += (number + 0.5) * exposure_electrons_per_square_angstrom
            weights = torch.from_numpy(damage_amplitude(table, exposure, voltage_kilovolt)).to(frame.device)
            weights[0] = 1
            weight = weights[index]
            spectrum *= weight
            squares = weights**2 if squares is None else squares + weights**2
        half = number % 2 if halves_grid is not None else 0
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
    if halves_grid is not None:
        even, odd = (None if part is None else _image(part, field.shape, halves_grid) for part in total)
    return CorrectedMovie(
        _image(whole, field.shape, grid),
        None if unweighted is None else _image(unweighted, field.shape, grid),
        even,
        odd,
        None if power is None else power.result(),
    )


def _frequencies(
    shape: tuple[int, int], pixel_size_angstrom: float, device: torch.device
) -> tuple[Tensor, NDArray[np.float64]]:
    """Return each coefficient's place in a table of frequencies (1/angstrom), and the table.

    Weights are a smooth function of frequency: looked up, not computed for every pixel.
    """
    k_y, k_x = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    frequency = np.hypot(k_y[:, None], k_x[None, :]) / pixel_size_angstrom
    index = torch.from_numpy(np.rint(frequency / frequency.max() * 4095).astype(np.int64))
    return index.to(device), np.arange(4096) / 4095 * frequency.max()


_kept_frequencies = lru_cache(maxsize=1)(_frequencies)


def _image(spectrum: Tensor, shape: tuple[int, int], grid: SumGrid | None) -> NDArray[np.float32]:
    if grid is not None and grid.kept != shape:
        rows, columns = grid.kept
        spectrum = torch.fft.rfft2(torch.fft.irfft2(spectrum, s=shape)[:rows, :columns])
        shape = grid.kept
    result = cropped_inverse(spectrum, shape, shape if grid is None else grid.shape)
    image: NDArray[np.float32] = result.cpu().numpy().astype(np.float32, copy=False)
    return image
