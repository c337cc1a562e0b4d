"""A network over a whole image, tile by tile, on any device: what picking and denoising share."""

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.networks import UNet
from emflow.precision import in_halves
from emflow.tiling import TileGrid, map_tiles

# Cores of at most this many pixels: a whole micrograph at the working scale in most cases.
TILE_PIXELS = 1024


def infer(
    network: UNet,
    image: NDArray[np.float32],
    *,
    device: str | torch.device = "cpu",
    tile_pixels: int = TILE_PIXELS,
    halves_on_cpu: bool = False,
) -> NDArray[np.float32]:
    """Run a tileable network over an image, stitched by tile centres: the same as untiled.

    Parameters
    ----------
    network
        Already on ``device``.
    image
        Shape (height, width), or (channels, height, width) for a network of several, or many of these,
        (n, channels, height, width); normalised.
    tile_pixels
        Side of a tile's core, rounded down to a multiple of the stride.
    halves_on_cpu
        See `emflow.precision.in_halves`.

    Returns
    -------
    NDArray[np.float32]
        Shape (channels, height, width), of many (n, channels, height, width).
    """
    stride = network.stride
    step = max(stride, tile_pixels // stride * stride)
    grid = TileGrid((image.shape[-2], image.shape[-1]), step, network.halo, stride)
    many = image.ndim == 4

    def forward(window: NDArray[np.float32]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(np.ascontiguousarray(window))
        tensor = tensor.reshape(len(window) if many else 1, -1, *window.shape[-2:]).to(device)
        with torch.inference_mode(), in_halves(device, on_cpu=halves_on_cpu):
            answer: NDArray[np.float32] = network(tensor).float().cpu().numpy()
        return answer if many else answer[0]

    return map_tiles(forward, image, grid)
