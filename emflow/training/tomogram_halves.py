"""Training the denoiser of tomograms on a session's own halves: each is the other's target.

Their noise is independent, so the best answer to one is what both have in common (Noise2Noise; cryoCARE,
Buchholz et al., 2019). Parts of the tomograms that share no voxel are learned from and judged by.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.training.batches import Batch

# Cubes are a little larger than the crops that are cut out of them, so that crops differ.
CUBE_MARGIN_VOXELS = 16
APART_SHARE = 0.2

Part = tuple[slice, slice, slice]
Shape = tuple[int, int, int]
CubePair = tuple[NDArray[np.float16], NDArray[np.float16]]


def crop_side(shape: Shape, wanted: int, stride: int) -> int:
    """Return the side of crops of a tomogram (z, y, x): as wanted, or what two of fit along its longer side.

    Raises
    ------
    BadInputError
        If not even ``stride`` voxels do.
    """
    side = min(wanted, *shape, max(shape[1:]) // 2) // stride * stride
    if side < stride:
        raise BadInputError(f"is too small to learn from: {shape[2]} x {shape[1]} x {shape[0]} voxels")
    return side


def cube_places(
    shape: Shape, crop: int, count: int, random: np.random.Generator, *, apart: bool
) -> list[Part]:
    """Draw where cubes of a tomogram (z, y, x) lie.

    The last fifth of its longer side of y and x, or as much as a crop takes, is ``apart``: to judge by.
    """
    along = 1 if shape[1] >= shape[2] else 2
    border = shape[along] - max(crop, round(APART_SHARE * shape[along]))
    bounds = [(0, side) for side in shape]
    bounds[along] = (border, shape[along]) if apart else (0, border)
    places = []
    for _ in range(count):
        part = []
        for low, high in bounds:
            side = min(crop + CUBE_MARGIN_VOXELS, high - low)
            start = int(random.integers(low, high - side + 1))
            part.append(slice(start, start + side))
        places.append((part[0], part[1], part[2]))
    return places


def halves_batch(cubes: Sequence[CubePair], crop: int, count: int, random: np.random.Generator) -> Batch:
    """Cut crops out of random cubes: (one half, the other), both (n, 1, d, h, w), in either order."""
    inputs, targets = [], []
    for index in random.integers(len(cubes), size=count):
        start = [int(random.integers(side - crop + 1)) for side in cubes[index][0].shape]
        part = tuple(slice(first, first + crop) for first in start)
        # Mirrors leave the missing wedge where it is; quarter turns would not.
        mirror = tuple(slice(None, None, -1 if random.random() < 0.5 else 1) for _ in range(3))
        pair = [half[part][mirror].astype(np.float32)[None] for half in cubes[index]]
        if random.random() < 0.5:
            pair.reverse()
        inputs.append(pair[0])
        targets.append(pair[1])
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets))


def halves_loss(answer: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the squared error against the other half: its noise is a constant in it."""
    return (answer - batch[1]).square().mean()
