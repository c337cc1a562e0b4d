"""A network over a whole image, tile by tile, on any device: what picking and denoising share."""

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.networks import UNet
from emflow.tiling import TileGrid, map_tiles

# Cores of at most this many pixels: a whole micrograph at the working scale in most cases.
TILE_PIXELS = 1024


def infer(
    network: UNet,
    image: NDArray[np.float32],
    *,
    device: str | torch.device = "cpu",
    tile_pixels: int = TILE_PIXELS,
) -> NDArray[np.float32]:
    """Run a tileable network over an image, stitched by tile centres: the same as untiled.

    Parameters
    ----------
    network
        Already on ``device``.
    image
        Shape (height, width), or (channels, height, width) for a network of several; normalised.
    tile_pixels
        Side of a tile's core, rounded down to a multiple of the stride.

    Returns
    -------
    NDArray[np.float32]
        Shape (channels, height, width).
    """
    stride = network.stride
    step = max(stride, tile_pixels // stride * stride)
    grid = TileGrid((image.shape[-2], image.shape[-1]), step, network.halo, stride)
    kind = torch.device(device).type

    def forward(window: NDArray[np.float32]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(np.ascontiguousarray(window))
        tensor = tensor.reshape(1, -1, *window.shape[-2:]).to(device)
        # Halves are for the GPU alone: on a CPU the answer must not depend on its instruction set.
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.float16, enabled=kind == "cuda"):
            answer: NDArray[np.float32] = network(tensor)[0].float().cpu().numpy()
        return answer

    return map_tiles(forward, image, grid)
