"""The grid that a movie's sums are cropped to: square pixels of about the wanted size."""

from dataclasses import dataclass

import numpy as np

SQUARE_WITHIN = 1e-4
"""Largest part by which a pixel's sides may differ: 20 000 angstrom of defocus gain 4 of astigmatism."""
# Largest part of a side that is left out, and by which a pixel's size may miss the wanted one.
_LARGEST_CHANGE = 0.015
# What the sides' difference counts beside area that is lost.
_SQUARE_WEIGHT = 10.0
_OBLONG_WEIGHT = 1e4


@dataclass(frozen=True)
class SumGrid:
    """``kept`` (h, w) of a frame's pixels, from the first, become ``shape`` (h, w), both even."""

    kept: tuple[int, int]
    shape: tuple[int, int]

    @property
    def binning(self) -> float:
        """How many pixels of a frame a side of a pixel is long, the mean of both sides."""
        return (self.kept[0] / self.shape[0] + self.kept[1] / self.shape[1]) / 2


def sum_grid(shape: tuple[int, int], binning: float) -> SumGrid:
    """Return the grid for frames (h, w) whose pixels are square, and about ``binning`` of the frames' wide.

    STAR files know one pixel size for both axes, and frames of 4092 x 5760 pixels do not become even sides of
    the same scale but by chance. So a few of the last rows and columns may be left out, and the size may
    miss the wanted one a little: least of both, where sides differ by less than `SQUARE_WITHIN`. Frames of
    a few hundred pixels have no such grid; theirs is the best there is.

    Parameters
    ----------
    shape
        (h, w) of the frames.
    binning
        At least 1.

    Raises
    ------
    ValueError
        If pixels would be finer than the frames', or the sides shorter than two pixels.
    """
    if binning < 1:
        raise ValueError(f"binning {binning:g} is below 1")
    height, width = shape
    if min(shape) / binning < 2:
        raise ValueError(f"frames of {height} x {width} pixels cannot be binned by {binning:g}")
    wanted = height / binning
    reach = max(2, round(_LARGEST_CHANGE * wanted))
    rows = np.arange(round(wanted) - reach, round(wanted) + reach + 1)
    rows = rows[(rows % 2 == 0) & (rows > 0)][:, None, None]
    kept_rows = height - np.arange(max(2, int(_LARGEST_CHANGE * height)))[None, :, None]
    scale = rows / kept_rows
    fewer = np.arange(max(2, int(_LARGEST_CHANGE * width / binning / 2)))[None, None, :]
    columns = 2 * np.floor(scale * width / 2 + 1e-9).astype(int) - 2 * fewer
    possible = (columns > 0) & (scale <= 1)
    columns = np.where(possible, columns, 2)
    kept_columns = np.minimum(np.rint(columns / scale).astype(int), width)
    oblong = np.abs(columns / kept_columns / scale - 1)
    lost = 1 - kept_rows * kept_columns / (height * width)
    cost = lost + np.abs(scale * binning - 1) + _SQUARE_WEIGHT * oblong
    cost = cost + _OBLONG_WEIGHT * np.maximum(oblong - SQUARE_WITHIN, 0)
    best = np.unravel_index(np.argmin(np.where(possible, cost, np.inf)), cost.shape)
    kept = int(kept_rows[0, best[1], 0]), int(kept_columns[best])
    return SumGrid(kept, (int(rows[best[0], 0, 0]), int(columns[best])))
