"""What a pick rests on: which pixels the network's answer at its centre hangs on, by two methods of captum.

Occlusion asks what the answer loses when a patch is replaced by the background's grey: slow, and easy to
trust. Grad-CAM asks which features of the network's last level speak for the answer, and where else they
are: quick, and vague. Neither says that the pick is right.
"""

from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import FeatureAblation, LayerAttribution, LayerGradCam
from numpy.typing import NDArray

from emflow.networks import UNet
from emflow.tiling import TileGrid

# An occluded patch, in particle diameters: a sixth of one shows parts of a particle.
PATCH_DIAMETERS = 1 / 6
# How far around a pick is looked at.
REACH_DIAMETERS = 1.5


@dataclass(frozen=True)
class Explanation:
    """A pick and its surroundings, all float32 of one shape (h, w).

    ``occlusion`` is by how much the logit at the pick falls when a pixel's patch is hidden, ``grad_cam`` the
    share, 0..1 of the highest, of what speaks for it there. ``logit`` is the network's answer, ``centre_yx``
    the pick in pixels of ``image``.
    """

    image: NDArray[np.float32]
    occlusion: NDArray[np.float32]
    grad_cam: NDArray[np.float32]
    logit: float
    centre_yx: tuple[float, float]


def explain(
    network: UNet, image: NDArray[np.float32], centre_yx: tuple[float, float], diameter_pixels: float
) -> Explanation:
    """Explain the network's heat at a place.

    Parameters
    ----------
    network
        A picker's, on the CPU.
    image
        As the picker looks at it: its scale, normalised, shape (height, width).
    centre_yx
        The pick in pixels of ``image``.
    diameter_pixels
        Of the particle at this scale.

    Raises
    ------
    ValueError
        If the place is outside the image.
    """
    height, width = image.shape
    y, x = (int(np.rint(value)) for value in centre_yx)
    if not (0 <= y < height and 0 <= x < width):
        raise ValueError(f"({x}, {y}) is outside an image of {width} x {height} pixels")
    reach = int(np.ceil(REACH_DIAMETERS * diameter_pixels))
    # All that the answer can hang on and no more, from an origin that the whole image's tiles have as well.
    stride = network.stride
    top, left = (max(0, (place - network.halo) // stride * stride) for place in (y, x))
    bottom, right = (-(-(place + network.halo + 1) // stride) * stride for place in (y, x))
    grid = TileGrid((height, width), stride, network.halo, stride)
    part = grid.pad_to_stride(image)[top:bottom, left:right]
    window = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))[None, None]
    row, column = y - top, x - left

    def heat_here(inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = network(inputs)[:, 0, row, column]
        return answer

    near = (
        slice(max(0, row - reach), min(height - top, row + reach + 1)),
        slice(max(0, column - reach), min(width - left, column + reach + 1)),
    )
    patches = _patches(window.shape[-2:], near, max(2, round(PATCH_DIAMETERS * diameter_pixels)))
    with torch.no_grad():
        logit = float(heat_here(window))
        loss = FeatureAblation(heat_here).attribute(
            window, baselines=0.0, feature_mask=patches, perturbations_per_eval=8
        )
    cam = LayerGradCam(heat_here, network.up_units[0]).attribute(window, relu_attributions=True)
    cam = LayerAttribution.interpolate(cam, window.shape[-2:], "bilinear").detach()[0, 0].numpy()
    cam = cam[near]
    return Explanation(
        image=np.asarray(part[near], dtype=np.float32),
        occlusion=np.asarray(loss[0, 0].numpy()[near], dtype=np.float32),
        grad_cam=np.asarray(cam / max(float(cam.max()), 1e-12), dtype=np.float32),
        logit=logit,
        centre_yx=(centre_yx[0] - top - near[0].start, centre_yx[1] - left - near[1].start),
    )


def _patches(shape: tuple[int, ...], near: tuple[slice, slice], side: int) -> torch.Tensor:
    """Number the patches of a part of an image, from 1; all else is patch 0, and hidden as one."""
    numbers = np.zeros(shape, dtype=np.int64)
    rows = np.arange(near[0].stop - near[0].start) // side
    columns = np.arange(near[1].stop - near[1].start) // side
    numbers[near] = 1 + rows[:, None] * (columns[-1] + 1) + columns[None, :]
    return torch.from_numpy(numbers)[None, None]
