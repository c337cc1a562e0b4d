"""What a segmenter says of slices on a GPU: many at a time, and nothing leaves it but the answer.

On a CPU some slices at a time are as fast, and nothing but the network takes time there:
:mod:`emflow.segmentation` looks at them by itself. On a GPU they are too little to do, and the rest
(standardisation, softmax, rounding) would take the host longer than the network takes.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emflow.networks import UNet
from emflow.precision import in_halves

# What a pixel of a slice takes on its way through the network and after it: some 30 features of each level in
# half precision and the classes' logits and probabilities. Reckoned, with room to spare.
_BYTES_OF_PIXEL = 500
# Enough to keep a GPU at work, as reckoned: not measured.
_MOST_PIXELS = 1 << 24


def pixels_at_once(device: torch.device) -> int:
    """Return how many pixels of slices are looked at together: half of what the GPU's free memory holds."""
    if device.type != "cuda":
        return _MOST_PIXELS
    return min(_MOST_PIXELS, _free_bytes(device) // 2 // _BYTES_OF_PIXEL)


def _free_bytes(device: torch.device) -> int:
    """Return what a GPU has left, with what torch holds and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def sums_on_gpu(shape: tuple[int, int, int, int], device: torch.device) -> Tensor | None:
    """Return room for scores (classes, z, y, x) in the GPU's memory; None where it would take half of it."""
    if device.type != "cuda":
        return None
    fits = math.prod(shape) < _free_bytes(device) // 2
    return torch.empty(shape, dtype=torch.uint8, device=device) if fits else None


def look_together(
    network: UNet,
    slab: NDArray[np.float32],
    centre: float,
    spread: float,
    clip_sigmas: float,
    *,
    share: float,
    known: Tensor | None,
    looks: int = 1,
    device: str | torch.device,
    pixels: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return scores (classes, n, y, x) and the likeliest classes (n, y, x), uint8, of a slab's inner slices.

    Parameters
    ----------
    network
        Of ``2 r + 1`` input channels, on ``device``.
    slab
        Slices (n + 2 r, y, x) as stored.
    centre, spread, clip_sigmas
        See `emflow.segmentation.standardise`.
    share
        Score of a class that is certain.
    known
        Scores (classes, n, y, x) uint8 on ``device`` that are added before the likeliest class is taken.
    looks
        See `emflow.segmentation.look_upright`.
    pixels
        How many are looked at together; what the GPU has room for when not given.
    """
    device = torch.device(device)
    height, width = slab.shape[1:]
    count = len(slab) - network.in_channels + 1
    together = max(1, (pixels or pixels_at_once(device)) // (height * width))
    values = torch.from_numpy(np.ascontiguousarray(slab)).to(device)
    values = ((values - centre) / (spread or 1.0)).clamp(-clip_sigmas, clip_sigmas)
    scores = torch.empty((network.out_channels, count, height, width), dtype=torch.uint8, device=device)
    labels = torch.empty((count, height, width), dtype=torch.uint8, device=device)
    windows = _windows(network, values)
    mirrored = _windows(network, values.flip(0, 1, 2)) if looks == 2 else None
    with torch.no_grad():
        for first in range(0, count, together):
            last = min(first + together, count)
            part = slice(first, last)
            one = _likelihoods(network, windows[part], height, width)
            if mirrored is not None:
                other = _likelihoods(network, mirrored[count - last : count - first], height, width)
                one = (one + other.flip(0, 2, 3)) / 2
            one *= share
            if known is not None:
                one += known[:, part].movedim(0, 1)
            labels[part] = one.argmax(dim=1).to(torch.uint8)
            scores[:, part] = one.round().to(torch.uint8).movedim(0, 1)
    return scores, labels


def _windows(network: UNet, slices: Tensor) -> Tensor:
    """Return what the network sees of each of a slab's inner slices: (n, channels, y, x), nothing copied."""
    return _to_stride(slices, network.stride).unfold(0, network.in_channels, 1).movedim(-1, 1)


def _likelihoods(network: UNet, windows: Tensor, height: int, width: int) -> Tensor:
    """Return the classes' probabilities (n, classes, height, width)."""
    with in_halves(windows.device, on_cpu=True):
        logits = network(windows.contiguous())
    return torch.softmax(logits[..., :height, :width].float(), dim=1)


def _to_stride(slices: Tensor, stride: int) -> Tensor:
    """Mirror slices (n, y, x) at their lower and right border up to whole strides, edge pixels repeated."""
    for axis in (1, 2):
        side = slices.shape[axis]
        more = -side % stride
        if more:
            mirrored = torch.arange(more, device=slices.device) % (2 * side)
            mirrored = torch.where(mirrored < side, side - 1 - mirrored, mirrored - side)
            slices = torch.cat([slices, slices.index_select(axis, mirrored)], dim=axis)
    return slices
