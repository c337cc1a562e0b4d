"""Denoising of tomograms by a 3D network, in blocks that fit together without a seam.

Where halves of the data are there, each is denoised on its own and both are averaged: the network was trained
to see one half's noise. Denoised tomograms are for eyes and for segmentation; particles come from the tilts.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.networks import UNet
from emflow.precision import in_halves
from emflow.segmentation import Read, Volume, measured_standardisation, standardise, whole
from emflow.tiling import TileGrid, map_tiles

TILE_PIXELS = 192
# Voxels of a block with its halo: what a network's features need is some ten times as much.
_BLOCK_VOXELS = 100_000_000
_MOST_SLICES = 128


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
        One for each half (or one for the whole): gives voxels from a first to before a last slice.
    shape
        (z, y, x) of the tomogram.
    slab_slices
        A multiple of the network's stride.
    standards
        Centre and spread of each of ``reads``, see `emflow.segmentation.standardisation`.

    Returns
    -------
    Iterator[tuple[int, Volume]]
        In the units of the first of ``reads``; the same as of the whole tomogram at once.
    """
    halo = network.halo
    step = block_slices(shape, halo, slab_slices)
    for first in range(0, shape[0], step):
        last = min(first + step, shape[0])
        total = np.zeros((last - first, *shape[1:]), dtype=np.float32)
        for read, (centre, spread) in zip(reads, standards, strict=True):
            low, high = max(0, first - halo), min(shape[0], last + halo)
            block = standardise(read(low, high), centre, spread)
            total += denoise_block(network, block, device=device)[first - low : last - low] / len(reads)
        centre, spread = standards[0]
        total = total * np.float32(spread) + np.float32(centre)
        for start in range(first, last, slab_slices):
            yield start, total[start - first : min(start + slab_slices, last) - first]


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


def denoise_block(network: UNet, block: Volume, *, device: str | torch.device = "cpu") -> Volume:
    """Denoise a standardised block (z, y, x), tiled over y and x."""
    stride = network.stride
    depth = len(block)
    padded = np.pad(block, ((0, -depth % stride), (0, 0), (0, 0)), mode="symmetric")
    grid = TileGrid((block.shape[1], block.shape[2]), TILE_PIXELS, network.halo, stride)

    def forward(window: NDArray[np.float32]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(np.ascontiguousarray(window))[None, None].to(device)
        with torch.inference_mode(), in_halves(device, on_cpu=True):
            answer: NDArray[np.float32] = network(tensor)[0].float().cpu().numpy()
        return answer

    return map_tiles(forward, padded, grid)[0, :depth]
