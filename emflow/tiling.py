"""The tile grid: how an image is cut for a network so that the stitched result equals the whole one.

A tile is read with a halo and only its core is kept: stitching by tile centres. With a halo of at least half
the network's receptive field, and origins on multiples of its stride, that is exact: there is no blending.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tile:
    """One tile: the window to read, and the core of it to keep, as (start, stop) per axis of the image."""

    read_y: tuple[int, int]
    read_x: tuple[int, int]
    keep_y: tuple[int, int]
    keep_x: tuple[int, int]

    @property
    def read(self) -> tuple[slice, slice]:
        """The window, in the image."""
        return slice(*self.read_y), slice(*self.read_x)

    @property
    def keep(self) -> tuple[slice, slice]:
        """The core, in the image."""
        return slice(*self.keep_y), slice(*self.keep_x)

    @property
    def keep_in_window(self) -> tuple[slice, slice]:
        """The core, in the window."""
        return (
            slice(self.keep_y[0] - self.read_y[0], self.keep_y[1] - self.read_y[0]),
            slice(self.keep_x[0] - self.read_x[0], self.keep_x[1] - self.read_x[0]),
        )


@dataclass(frozen=True)
class TileGrid:
    """Tiles that cover an image of ``shape`` (height, width) once.

    ``step`` is the side of a core, ``halo`` what is read around it, ``stride`` the network's total stride;
    all in pixels. The grid covers the image padded to multiples of the stride (`pad_to_stride`), and windows
    end at the padded image's border, where the network's own padding is that of the whole image.

    Raises
    ------
    ValueError
        If ``step`` or ``halo`` is no multiple of ``stride``: tiles would then see another sampling phase.
    """

    shape: tuple[int, int]
    step: int
    halo: int
    stride: int

    def __post_init__(self) -> None:
        if self.step <= 0 or self.step % self.stride or self.halo % self.stride:
            raise ValueError(
                f"step {self.step} and halo {self.halo} must be multiples of stride {self.stride}"
            )

    @property
    def padded_shape(self) -> tuple[int, int]:
        """The image's sides rounded up to multiples of the stride."""
        height, width = (-(-side // self.stride) * self.stride for side in self.shape)
        return height, width

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles, row by row."""
        height, width = self.padded_shape
        for y in range(0, height, self.step):
            for x in range(0, width, self.step):
                keep_y = (y, min(y + self.step, height))
                keep_x = (x, min(x + self.step, width))
                yield Tile(
                    read_y=(max(0, keep_y[0] - self.halo), min(height, keep_y[1] + self.halo)),
                    read_x=(max(0, keep_x[0] - self.halo), min(width, keep_x[1] + self.halo)),
                    keep_y=keep_y,
                    keep_x=keep_x,
                )

    def pad_to_stride(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mirror the image (..., height, width) at its lower and right border up to `padded_shape`."""
        if image.shape[-2:] != self.shape:
            raise ValueError(f"the grid is for images of {self.shape}, got {image.shape}")
        height, width = self.padded_shape
        if self.shape == (height, width):
            return image
        padding = [(0, 0)] * (image.ndim - 2) + [(0, height - self.shape[0]), (0, width - self.shape[1])]
        return np.pad(image, padding, mode="symmetric")


def map_tiles(
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    image: NDArray[np.float32],
    grid: TileGrid,
) -> NDArray[np.float32]:
    """Apply ``function`` to an image tile by tile and stitch the cores.

    Parameters
    ----------
    function
        Takes a window (..., height, width) with sides that are multiples of the grid's stride, returns
        (channels, ..., height, width).
    image
        Shape (..., height, width), the last two those of the grid.

    Returns
    -------
    NDArray[np.float32]
        Shape (channels, ..., height, width): what ``function`` gives for the whole (padded) image.
    """
    padded = grid.pad_to_stride(image)
    stitched: NDArray[np.float32] | None = None
    for tile in grid:
        result = function(padded[..., *tile.read])
        if stitched is None:
            stitched = np.empty((*result.shape[:-2], *grid.padded_shape), dtype=np.float32)
        stitched[..., *tile.keep] = result[..., *tile.keep_in_window]
    if stitched is None:
        raise ValueError(f"an image of {grid.shape} has no tiles")
    return stitched[..., : grid.shape[0], : grid.shape[1]]
