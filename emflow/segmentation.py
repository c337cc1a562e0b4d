"""Segmentation slice by slice: a network says the class of every voxel from its slice and those around it.

The network takes ``in_channels`` neighbouring slices as channels and answers for the middle one. Beyond the
first and the last slice the volume is mirrored. Slices along z are looked at slab by slab; those along y and
x, which stand upright, first, one direction after the other, each slice whole: what they say is kept in an
array on disk, so that memory follows the slab and nothing is looked at twice; or on the GPU, where there is
one with room for it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.inference import infer
from emflow.networks import UNet
from emflow.preprocessing import centre_and_spread
from emflow.segmentation_batches import look_together

CLIP_SIGMAS = 8.0
# What a class's score, in 255ths of certainty, goes up to.
SCORE = 255
# How many upright slices are looked at before what they say is put away.
UPRIGHT_SLICES = 32
# And where that goes to a GPU: as many as a chunk of a stored tomogram is wide, so that each is read once or
# twice.
_UPRIGHT_SLICES_ON_GPU = 128
# So many pixels of slices a CPU is given at a time: with few, making ready for them takes longer than they
# do; with many, features do not stay in its cache.
_PIXELS_TOGETHER = 1 << 19
# How a volume (z, y, x) is turned for slices along y and x: z stays upright, as in training.
_UPRIGHT = {1: (1, 0, 2), 2: (2, 0, 1)}
# Slices that a tomogram's centre and spread are measured on.
STATISTICS_SLICES = 24

Volume = NDArray[np.float32]
Scores = NDArray[np.uint8]
Part = tuple[slice, slice, slice]
Read = Callable[[int, int], Volume]
ReadPart = Callable[[Part], Volume]


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
    return np.asarray(np.clip(scaled(volume, centre, spread), -CLIP_SIGMAS, CLIP_SIGMAS))


def scaled(volume: NDArray[np.floating], centre: float, spread: float) -> Volume:
    """Scale voxels to centre 0 and spread 1."""
    return np.asarray((np.asarray(volume, dtype=np.float32) - np.float32(centre)) / np.float32(spread or 1.0))


def mirrored(indices: NDArray[np.integer], depth: int) -> NDArray[np.int64]:
    """Return slice numbers brought inside 0..depth-1 by mirroring at the first and the last slice."""
    if depth == 1:
        return np.zeros(len(indices), dtype=np.int64)
    period = 2 * (depth - 1)
    folded = np.abs(np.asarray(indices, dtype=np.int64)) % period
    return np.where(folded < depth, folded, period - folded)


class Sums(Protocol):
    """What of a Zarr or NumPy array is used to keep scores (classes, z, y, x)."""

    def __getitem__(self, part: Any, /) -> Any:
        """Read a part."""

    def __setitem__(self, part: Any, values: Any, /) -> None:
        """Write a part."""


def look_upright(
    network: UNet,
    read: ReadPart,
    shape: tuple[int, int, int],
    sums: Sums | torch.Tensor,
    *,
    centre: float,
    spread: float,
    looks: int = 1,
    device: str | torch.device = "cpu",
) -> None:
    """Write what slices along y and along x say, a third of the whole score each.

    Parameters
    ----------
    network
        Of ``2 r + 1`` input channels, on ``device``.
    read
        Gives the voxels of a part (z, y, x) of the tomogram, as stored.
    shape
        (z, y, x) of the tomogram.
    sums
        Array (classes, z, y, x) of uint8 that is filled, or a tensor on ``device``; parts of `UPRIGHT_SLICES`
        slices are written to an array.
    centre, spread
        See `standardisation`.
    looks
        2 to look at each slice once more, mirrored along all its axes, and to take the mean.
    """
    step = _UPRIGHT_SLICES_ON_GPU if isinstance(sums, torch.Tensor) else UPRIGHT_SLICES
    for axis, order in _UPRIGHT.items():
        back = (0, *(1 + np.argsort(order)))
        for first in range(0, shape[axis], step):
            last = min(first + step, shape[axis])
            slab = _slab(network, read, shape[axis], axis, first, last).transpose(order)
            where = (slice(None), *_part(axis, first, last))
            third: Any
            if _on_gpu(device):
                third, _ = look_together(
                    network,
                    slab,
                    centre,
                    spread,
                    CLIP_SIGMAS,
                    share=SCORE / 3,
                    known=None,
                    looks=looks,
                    device=device,
                )
                third = third.permute(back)
                third = third if isinstance(sums, torch.Tensor) else third.cpu().numpy()
            else:
                slab = standardise(slab, centre, spread)
                third = np.empty((network.out_channels, last - first, *slab.shape[1:]), dtype=np.uint8)
                for number, one in enumerate(_answers(network, slab, looks, device)):
                    third[:, number] = np.rint(SCORE / 3 * one)
                third = third.transpose(back)
            sums[where] = third if axis == 1 else sums[where] + third


def segment_slabs(
    network: UNet,
    read: ReadPart,
    shape: tuple[int, int, int],
    slab_slices: int,
    *,
    centre: float,
    spread: float,
    upright: Sums | torch.Tensor | None = None,
    looks: int = 1,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, Scores, NDArray[np.uint8]]]:
    """Yield first slice, scores (classes, slices, y, x) and labels (slices, y, x), slab by slab.

    Parameters
    ----------
    network, read, shape, centre, spread, looks
        See `look_upright`.
    slab_slices
        Slices along z of a slab.
    upright
        What `look_upright` wrote: the scores are then the mean over the three directions.

    Returns
    -------
    Iterator[tuple[int, Scores, NDArray[np.uint8]]]
        Scores are probabilities in 255ths; a label is the number of the likeliest class.
    """
    share = SCORE if upright is None else SCORE / 3
    for first in range(0, shape[0], slab_slices):
        last = min(first + slab_slices, shape[0])
        slab = _slab(network, read, shape[0], 0, first, last)
        known = None if upright is None else upright[:, first:last]
        if _on_gpu(device):
            if known is not None and not isinstance(known, torch.Tensor):
                known = torch.from_numpy(np.asarray(known)).to(device)
            answer = look_together(
                network,
                slab,
                centre,
                spread,
                CLIP_SIGMAS,
                share=share,
                known=known,
                looks=looks,
                device=device,
            )
            yield first, answer[0].cpu().numpy(), answer[1].cpu().numpy()
            continue
        slab = standardise(slab, centre, spread)
        known = None if known is None else np.asarray(known)
        scores = np.empty((network.out_channels, last - first, *shape[1:]), dtype=np.uint8)
        labels = np.empty(scores.shape[1:], dtype=np.uint8)
        for number, one in enumerate(_answers(network, slab, looks, device)):
            score = share * one if known is None else share * one + known[:, number]
            labels[number] = score.argmax(axis=0)
            scores[:, number] = np.rint(score)
        yield first, scores, labels


def _slab(network: UNet, read: ReadPart, count: int, axis: int, first: int, last: int) -> Volume:
    """Read slices of an axis ``count`` long, and those on either side that the network sees; (z, y, x)."""
    radius = network.in_channels // 2
    wanted = mirrored(np.arange(first - radius, last + radius), count)
    low, high = int(wanted.min()), int(wanted.max()) + 1
    return read(_part(axis, low, high)).take(wanted - low, axis=axis)


def _on_gpu(device: str | torch.device) -> bool:
    return torch.device(device).type == "cuda"


def _part(axis: int, first: int, last: int) -> Part:
    part = [slice(None)] * 3
    part[axis] = slice(first, last)
    return part[0], part[1], part[2]


def _answers(network: UNet, slab: Volume, looks: int, device: str | torch.device) -> Iterator[Volume]:
    """Yield the classes' probabilities (classes, y, x) of each of a slab's inner slices."""
    # (slices, channels, y, x), nothing copied
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(slab, network.in_channels, axis=0), -1, 1)
    together = max(1, _PIXELS_TOGETHER // slab[0].size)
    for first in range(0, len(windows), together):
        part = windows[first : first + together]
        likely = _likelihoods(network, part, device)
        if looks == 2:
            # The missing wedge is the same in a mirror.
            likely = (likely + _likelihoods(network, part[:, ::-1, ::-1, ::-1], device).flip(2, 3)) / 2
        yield from likely.numpy()


def _likelihoods(network: UNet, windows: Volume, device: str | torch.device) -> torch.Tensor:
    """Return the classes' probabilities (n, classes, y, x) of the middle slices of windows."""
    return torch.from_numpy(infer(network, windows, device=device, halves_on_cpu=True)).softmax(dim=1)
