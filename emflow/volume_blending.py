"""What of a denoised tomogram, and what of the raw one, is worth keeping at each frequency: the halves tell.

A network can leave a frequency worse than it was, where the data are unlike what it has learned from, or the
CTF leaves next to nothing. The noise of one half is not in the other, so the sum of a half's denoised and raw
voxels that comes nearest to the other half comes nearest to the truth as well (as in Noise2Noise, Lehtinen et
al., ICML 2018), and the raw voxels alone are one such sum. It is found by least squares, shell by shell.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft

from emflow.fourier import volume_frequencies
from emflow.segmentation import Volume

SHELLS = 16
# Voxels that a filter reaches to either side; as fine in frequency as the shells are.
REACH = 16


def shell_gains(
    blocks: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]],
) -> NDArray[np.float64]:
    """Return how much of the denoised and of the raw voxels to take, (2, SHELLS).

    Parameters
    ----------
    blocks
        Denoised and raw voxels of parts of a tomogram, each (2, z, y, x): two halves with noise of their own.

    Returns
    -------
    NDArray[np.float64]
        In shells of equal width from 0 to half a cycle a voxel; the last one has all that lies beyond.
    """
    own = np.zeros((SHELLS, 2, 2))
    others = np.zeros((SHELLS, 2))
    for block in blocks:
        spectra = [[fft.rfftn(half) for half in halves] for halves in block]
        frequencies = volume_frequencies(block[1].shape[1:])
        shell = np.minimum((frequencies * 2 * SHELLS).astype(np.intp), SHELLS - 1).ravel()
        for half, row in itertools.product((0, 1), (0, 1)):
            others[:, row] += _products(shell, spectra[row][half], spectra[1][1 - half])
            for column in (0, 1):
                own[:, row, column] += _products(shell, spectra[row][half], spectra[column][half])
    # Both may say the same, or nothing: a thousandth more of each keeps that solvable, and the gains small.
    own += 1e-3 * np.einsum("sii,ij->sij", own, np.eye(2)) + np.finfo(float).tiny * np.eye(2)
    return np.asarray(np.linalg.solve(own, others[..., None])[..., 0].T)


def _products(shell: NDArray[np.intp], one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sums of products of coefficients, by shell."""
    return np.bincount(shell, (one * other.conj()).real.ravel(), SHELLS).astype(np.float64)


@dataclass(frozen=True)
class Blend:
    """Filters for the denoised and the raw voxels that are added up.

    Attributes
    ----------
    gains
        (2, SHELLS), see `shell_gains`.
    """

    gains: NDArray[np.float64]

    @cached_property
    def kernels(self) -> NDArray[np.float32]:
        """The filters (2, 2 REACH + 1, 2 REACH + 1, 2 REACH + 1), their middle in the middle."""
        side = 2 * REACH + 1
        frequencies = volume_frequencies((side, side, side))
        middles = (np.arange(SHELLS) + 0.5) / (2 * SHELLS)
        filters = [
            np.fft.fftshift(fft.irfftn(np.interp(frequencies, middles, gains), s=(side, side, side)))
            for gains in self.gains
        ]
        return np.stack(filters).astype(np.float32)

    def __call__(self, denoised: Volume, raw: Volume, *, device: str | torch.device = "cpu") -> Volume:
        """Return the filtered sum of what lies `REACH` voxels or more inside of both, (z, y, x)."""
        shape = raw.shape
        padded = tuple(fft.next_fast_len(side, real=True) for side in shape)
        total: Any = 0
        for values, kernel in zip((denoised, raw), self.kernels, strict=True):
            transfer = torch.fft.rfftn(torch.from_numpy(kernel).to(device), s=padded)
            tensor = torch.from_numpy(np.ascontiguousarray(values)).to(device)
            total = total + transfer * torch.fft.rfftn(tensor, s=padded)
        # Where kernel and voxels lie within each other wholly: nothing wraps around there.
        inner = tuple(slice(2 * REACH, side) for side in shape)
        return np.asarray(torch.fft.irfftn(total, s=padded)[inner].cpu().numpy())


def blended(
    slabs: Iterable[tuple[Volume, Volume]], blend: Blend, *, device: str | torch.device = "cpu"
) -> Iterator[Volume]:
    """Blend a tomogram slab by slab: the same as all at once.

    Parameters
    ----------
    slabs
        Denoised and raw voxels (slices, y, x), from the first slice to the last; all but the last have
        `REACH` slices or more.
    device
        Where the filters are applied.
    """
    before: Volume | None = None
    current: Volume | None = None
    for pair in slabs:
        after = np.stack(pair)
        if current is not None:
            if current.shape[1] < REACH:
                raise ValueError(f"slabs of {current.shape[1]} slices are less than the filters' {REACH}")
            yield _blended(before, current, after, blend, device)
            before = current[:, -REACH:]
        current = after
    if current is not None:
        yield _blended(before, current, None, blend, device)


def _blended(
    before: Volume | None,
    current: Volume,
    after: Volume | None,
    blend: Blend,
    device: str | torch.device,
) -> Volume:
    """Blend a slab (2, slices, y, x) between its neighbours; mirrored at the tomogram's faces."""
    parts = [
        part for part in (before, current, None if after is None else after[:, :REACH]) if part is not None
    ]
    voxels = np.concatenate(parts, axis=1)
    low = 0 if before is None else before.shape[1]
    missing = (REACH - low, REACH - (voxels.shape[1] - low - current.shape[1]))
    voxels = np.pad(voxels, ((0, 0), missing, (REACH, REACH), (REACH, REACH)), mode="symmetric")
    return blend(voxels[0], voxels[1], device=device)
