"""Segmentation slice by slice: a network says the class of every voxel from its slice and those around it.

The network takes ``in_channels`` neighbouring slices as channels and answers for the middle one. Beyond the
first and the last slice the volume is mirrored.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.inference import infer
from emflow.networks import UNet
from emflow.preprocessing import centre_and_spread

CLIP_SIGMAS = 8.0
# Slices that a tomogram's centre and spread are measured on.
STATISTICS_SLICES = 24

Volume = NDArray[np.float32]
Read = Callable[[int, int], Volume]


def statistics_slices(depth: int) -> NDArray[np.int64]:
    """Return which slices of a tomogram its statistics are taken from: spread over its middle half."""
    first, last = depth // 4, max(depth // 4, depth - depth // 4 - 1)
    return np.unique(np.linspace(first, last, min(depth, STATISTICS_SLICES)).round().astype(np.int64))


def standardisation(slices: NDArray[np.floating]) -> tuple[float, float]:
    """Return the centre and the robust spread of a tomogram's slices (n, y, x)."""
    return centre_and_spread(slices.reshape(-1, slices.shape[-1]))


def measured_standardisation(read: Read, depth: int) -> tuple[float, float]:
    """Return centre and spread of a tomogram of ``depth`` slices, reading no more of them than it takes."""
    return standardisation(np.concatenate([read(int(n), int(n) + 1) for n in statistics_slices(depth)]))


def whole(volume: NDArray[np.floating]) -> Read:
    """Return what reads the slices of a tomogram (z, y, x) that is in memory."""
    return lambda first, last: np.asarray(volume[first:last], dtype=np.float32)


def standardise(volume: NDArray[np.floating], centre: float, spread: float) -> Volume:
    """Scale voxels to centre 0 and spread 1, and clip what gold and edges make of them."""
    scaled = (np.asarray(volume, dtype=np.float32) - np.float32(centre)) / np.float32(spread or 1.0)
    return np.asarray(np.clip(scaled, -CLIP_SIGMAS, CLIP_SIGMAS))


def mirrored(indices: NDArray[np.integer], depth: int) -> NDArray[np.int64]:
    """Return slice numbers brought inside 0..depth-1 by mirroring at the first and the last slice."""
    if depth == 1:
        return np.zeros(len(indices), dtype=np.int64)
    period = 2 * (depth - 1)
    folded = np.abs(np.asarray(indices, dtype=np.int64)) % period
    return np.where(folded < depth, folded, period - folded)


def probabilities(
    network: UNet,
    slab: Volume,
    *,
    device: str | torch.device = "cpu",
) -> Volume:
    """Return the classes' probabilities of a slab's inner slices.

    Parameters
    ----------
    network
        Of ``2 r + 1`` input channels, on ``device``.
    slab
        Shape (slices + 2 r, y, x), standardised.

    Returns
    -------
    Volume
        Shape (classes, slices, y, x); sums to 1 over classes.
    """
    around = network.stem.in_channels // 4
    count = len(slab) - around + 1
    answers = [_softmax(infer(network, slab[n : n + around], device=device)) for n in range(count)]
    return np.stack(answers, axis=1)


def _softmax(logits: Volume) -> Volume:
    powers = np.exp(logits - logits.max(axis=0, keepdims=True))
    return np.asarray(powers / powers.sum(axis=0, keepdims=True))


def segment_slabs(
    network: UNet,
    read: Read,
    shape: tuple[int, int, int],
    slab_slices: int,
    *,
    centre: float,
    spread: float,
    axes: str = "z",
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, Volume]]:
    """Yield (first slice, probabilities (classes, slices, y, x)) of a tomogram, slab by slab.

    Parameters
    ----------
    read
        Gives the voxels (slices, y, x) from a first to before a last slice, as stored.
    shape
        (z, y, x) of the tomogram.
    centre, spread
        See `standardisation`.
    axes
        ``"z"`` looks at slices along z; ``"zyx"`` takes the mean with what slices along y and x say. Those
        are cut with a margin in z of the network's halo, so that slabs fit together.
    """
    radius = network.stem.in_channels // 8
    for first in range(0, shape[0], slab_slices):
        last = min(first + slab_slices, shape[0])
        wanted = mirrored(np.arange(first - radius, last + radius), shape[0])
        low, high = int(wanted.min()), int(wanted.max()) + 1
        slab = standardise(read(low, high), centre, spread)[wanted - low]
        found = probabilities(network, slab, device=device)
        if axes == "zyx":
            low = max(0, (first - network.halo) // network.stride * network.stride)
            high = min(shape[0], last + network.halo)
            block = standardise(read(low, high), centre, spread)
            for turned in ((1, 0, 2), (2, 1, 0)):
                across = np.ascontiguousarray(block.transpose(turned))
                around = mirrored(np.arange(-radius, len(across) + radius), len(across))
                seen = probabilities(network, across[around], device=device)
                inverse = (0, *(1 + np.argsort(turned)))
                found += seen.transpose(inverse)[:, first - low : last - low]
            found /= 3
        yield first, found
