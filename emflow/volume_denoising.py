"""Denoising of tomograms by a 3D network, in blocks that fit together without a seam.

Where halves of the data are there, each is denoised on its own and both are averaged, as the network was
trained to see one half's noise, and checked against each other, frequency by frequency. Denoised tomograms
are for eyes and for segmentation; particles come from the tilts.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.networks import UNet
from emflow.precision import in_halves
from emflow.segmentation import Read, Volume, measured_standardisation, scaled, standardise, whole
from emflow.tiling import TileGrid, map_tiles
from emflow.volume_blending import Blend, blended, shell_gains

TILE_PIXELS = 192
# Voxels of a block with its halo: of one of 928 x 928 the slices that are kept still are twice the halo's.
_BLOCK_VOXELS = 170_000_000
_MOST_SLICES = 128
# Most of (z, y, x) of a part that is looked at to find what each frequency is worth.
_MEASURED = (192, 192, 192)


def block_slices(shape: tuple[int, int, int], halo: int, slab_slices: int) -> int:
    """Return how many slices a block answers for: whole slabs, fewer where slices are large."""
    affordable = _BLOCK_VOXELS // (shape[1] * shape[2]) - 2 * halo
    return max(1, min(_MOST_SLICES, affordable) // slab_slices) * slab_slices


def denoise_slabs(
    network: UNet,
    reads: Sequence[Read],
    shape: tuple[int, int, int],
    slab_slices: int,
    *,
    standards: Sequence[tuple[float, float]],
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, Volume]]:
    """Yield (first slice, denoised voxels (slices, y, x)) of a tomogram, slab by slab.

    Parameters
    ----------
    network
        On ``device``.
    reads
        One for each half (or one for the whole): gives voxels from a first to before a last slice. From two
        halves it is told what of the network's answer to keep at each frequency, and what of the raw voxels;
        see :mod:`emflow.volume_blending`.
    shape
        (z, y, x) of the tomogram.
    slab_slices
        A multiple of the network's stride; with two halves `emflow.volume_blending.REACH` or more.
    standards
        Centre and spread of each of ``reads``, see `emflow.segmentation.standardisation`.

    Returns
    -------
    Iterator[tuple[int, Volume]]
        In the units of the first of ``reads``; the same as of the whole tomogram at once.
    """
    centre, spread = standards[0]
    pairs = _denoised_and_raw(network, reads, shape, slab_slices, standards, device)
    if len(reads) == 2:
        blend = measured_blend(network, reads, shape, standards=standards, device=device)
        slabs = blended(pairs, blend, device=device)
    else:
        slabs = (denoised for denoised, _ in pairs)
    for number, slab in enumerate(slabs):
        yield number * slab_slices, slab * np.float32(spread) + np.float32(centre)


def _denoised_and_raw(
    network: UNet,
    reads: Sequence[Read],
    shape: tuple[int, int, int],
    slab_slices: int,
    standards: Sequence[tuple[float, float]],
    device: str | torch.device,
) -> Iterator[tuple[Volume, Volume]]:
    """Yield the means over ``reads`` of denoised and of raw voxels, standardised, slab by slab."""
    halo = network.halo
    step = block_slices(shape, halo, slab_slices)
    for first in range(0, shape[0], step):
        last = min(first + step, shape[0])
        low, high = max(0, first - halo), min(shape[0], last + halo)
        inner = slice(first - low, last - low)
        means = np.zeros((2, last - first, *shape[1:]), dtype=np.float32)
        for read, standard in zip(reads, standards, strict=True):
            both = denoise_block(network, read(low, high), standard, keep=inner, device=device)
            both /= np.float32(len(reads))
            means += both
        for start in range(0, last - first, slab_slices):
            part = means[:, start : start + slab_slices]
            yield part[0], part[1]


def measured_blend(
    network: UNet,
    reads: Sequence[Read],
    shape: tuple[int, int, int],
    *,
    standards: Sequence[tuple[float, float]],
    device: str | torch.device = "cpu",
) -> Blend:
    """Measure in parts of a tomogram how much of denoised and raw voxels to take; see `denoise_slabs`."""

    def block(z: slice, y: slice, x: slice) -> tuple[Volume, Volume]:
        parts = [
            denoise_block(network, read(z.start, z.stop)[:, y, x], standard, device=device)
            for read, standard in zip(reads, standards, strict=True)
        ]
        denoised, raw = zip(*parts, strict=True)
        return np.stack(denoised), np.stack(raw)

    return Blend(shell_gains(itertools.starmap(block, measured_parts(shape))))


def measured_parts(shape: tuple[int, int, int]) -> list[tuple[slice, slice, slice]]:
    """Return the parts of a tomogram that are measured: its middle, or two along each long axis."""
    axes = []
    for side, most in zip(shape, _MEASURED, strict=True):
        spare = max(0, side - most)
        firsts = (spare // 2,) if spare < most else (spare // 4, spare - spare // 4)
        axes.append([slice(first, first + min(side, most)) for first in firsts])
    return [(z, y, x) for z, y, x in itertools.product(*axes)]


def denoised(
    network: UNet, halves: Sequence[NDArray[np.float32]], *, device: str | torch.device = "cpu"
) -> Volume:
    """Denoise a whole tomogram in memory from its halves, or from all of it, each (z, y, x)."""
    depth, height, width = halves[0].shape
    reads = [whole(half) for half in halves]
    standards = [measured_standardisation(read, depth) for read in reads]
    slabs = denoise_slabs(
        network, reads, (depth, height, width), 4 * network.stride, standards=standards, device=device
    )
    return np.concatenate([slab for _, slab in slabs])


def denoise_block(
    network: UNet,
    block: Volume,
    standard: tuple[float, float],
    *,
    keep: slice = slice(None),
    device: str | torch.device = "cpu",
) -> NDArray[np.float32]:
    """Denoise a block, tiled over y and x.

    What is clipped for the network stands so far out of the noise that it is kept as it is.

    Parameters
    ----------
    network
        On ``device``.
    block
        (z, y, x).
    standard
        Its centre and spread.
    keep
        Slices to answer for; what is not kept is never held of more than a tile.

    Returns
    -------
    NDArray[np.float32]
        Denoised and raw voxels, both standardised, (2, slices kept, y, x).
    """
    stride = network.stride
    depth = len(block)
    grid = TileGrid((block.shape[1], block.shape[2]), TILE_PIXELS, network.halo, stride)

    def answer(window: NDArray[np.floating]) -> NDArray[np.float32]:
        raw, clipped = scaled(window, *standard), standardise(window, *standard)
        padded = np.pad(clipped, ((0, -depth % stride), (0, 0), (0, 0)), mode="symmetric")
        tensor = torch.from_numpy(padded)[None, None].to(device)
        with torch.inference_mode(), in_halves(device, on_cpu=True):
            denoised: NDArray[np.float32] = network(tensor)[0, 0, :depth].float().cpu().numpy()
        return np.stack([(denoised + (raw - clipped))[keep], raw[keep]])

    return map_tiles(answer, block, grid)
