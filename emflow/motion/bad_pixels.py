"""Pixels that do not count electrons: found by their counts, and filled with their neighbours'."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

# Deviations from its neighbourhood at which a pixel's total is taken for a fault: one in 10^10 by chance.
_THRESHOLD = 6.5
# Neighbours that a bad pixel's value is drawn from lie within these distances, the nearest that has enough.
_REACHES = (2, 5)
_ENOUGH = 6


def find_bad_pixels(total: NDArray[np.float32], known_bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find hot and dead pixels in the sum of a movie's frames (h, w), besides those known: bool (h, w).

    A pixel is compared with the median of its neighbours, after a transform (Anscombe's) that gives counts
    of any mean the same deviation. Dead pixels stand out once about 20 electrons a pixel were recorded.
    """
    good = total[~known_bad]
    if good.size < 100:
        return np.zeros_like(known_bad)
    mean = float(np.mean(good))
    # Counts may come in other units than electrons: the deviation of the good ones tells the unit.
    low, middle, high = np.percentile(good, [16, 50, 84])
    unit = max(((high - low) / 2) ** 2 / max(mean, 1e-12), 1e-12)
    filled = np.where(known_bad, np.float32(middle), total) / np.float32(unit)
    image = torch.from_numpy(2 * np.sqrt(np.maximum(filled, 0) + np.float32(0.375)))
    difference = _off_neighbours(image).numpy()
    spread = 1.4826 * float(np.median(np.abs(difference[~known_bad])))
    found: NDArray[np.bool_] = np.abs(difference) > _THRESHOLD * max(spread, 1.0)
    return found & ~known_bad


def find_bad_pixels_on_device(total: Tensor, known_bad: Tensor) -> Tensor:
    """Find what `find_bad_pixels` does, on the device of the sum and the mask (h, w).

    Percentiles are not interpolated.
    """
    good = total[~known_bad]
    if len(good) < 100:
        return torch.zeros_like(known_bad)
    mean = float(good.mean())
    ordered = good.sort().values
    low, middle, high = (float(ordered[round(part * (len(good) - 1))]) for part in (0.16, 0.5, 0.84))
    unit = max(((high - low) / 2) ** 2 / max(mean, 1e-12), 1e-12)
    filled = total.masked_fill(known_bad, middle) / unit
    difference = _off_neighbours(2 * torch.sqrt(filled.clamp(min=0) + 0.375)).abs()
    spread = 1.4826 * float(difference[~known_bad].median())
    return (difference > _THRESHOLD * max(spread, 1.0)) & ~known_bad


def _off_neighbours(image: Tensor) -> Tensor:
    """Return by how much each pixel is above the median of its neighbours."""
    padded = torch.nn.functional.pad(image[None, None], (1, 1, 1, 1), mode="reflect")[0, 0]
    height, width = image.shape
    around = torch.stack(
        [padded[y : y + height, x : x + width] for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    )
    # The mean of the middle ones of eight: a median that does not mind a bad neighbour or two.
    return image - _middle(around)


def _middle(values: Tensor) -> Tensor:
    """Return the mean of the fourth and fifth largest of eight along the first axis, without sorting them."""
    a = list(values)
    # Batcher's network for eight values
    pairs = (
        (0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6),
        (0, 4), (1, 5), (2, 6), (3, 7), (2, 4), (3, 5), (1, 2), (3, 4), (5, 6),
    )  # fmt: skip
    for i, j in pairs:
        a[i], a[j] = torch.minimum(a[i], a[j]), torch.maximum(a[i], a[j])
    middle: Tensor = 0.5 * (a[3] + a[4])
    return middle


class BadPixelFiller:
    """Fills bad pixels of a frame with values of good neighbours, drawn anew in each frame, as RELION does.

    A mean would carry less noise than its surroundings; the same neighbour in every frame would be a fixed
    pattern, which motion correction would lock on to.
    """

    def __init__(self, bad: NDArray[np.bool_]) -> None:
        """Take the mask (h, w) of bad pixels.

        Raises
        ------
        ValueError
            If no pixel is good.
        """
        if bad.all():
            raise ValueError("no pixel is good")
        self._index = np.flatnonzero(bad)
        height, width = bad.shape
        y, x = np.divmod(self._index, width)
        self._candidates = np.zeros((len(y), (2 * _REACHES[0] + 1) ** 2), dtype=np.int64)
        self._counts = np.zeros(len(y), dtype=np.int64)
        for reach in _REACHES:
            todo = np.flatnonzero(self._counts < _ENOUGH)
            if not len(todo):
                break
            steps = np.arange(-reach, reach + 1)
            near_y = y[todo, None, None] + steps[:, None]
            near_x = x[todo, None, None] + steps[None, :]
            inside = (near_y >= 0) & (near_y < height) & (near_x >= 0) & (near_x < width)
            near = np.where(inside, near_y * width + near_x, 0).reshape(len(todo), -1)
            usable = inside.reshape(len(todo), -1) & ~bad.reshape(-1)[near]
            order = np.argsort(~usable, axis=1, kind="stable")[:, : self._candidates.shape[1]]
            self._candidates[todo] = np.take_along_axis(near, order, axis=1)
            self._counts[todo] = np.minimum(usable.sum(1), self._candidates.shape[1])
        lost = np.flatnonzero(self._counts == 0)
        if len(lost):
            nearest = distance_transform_edt(bad, return_distances=False, return_indices=True)
            self._candidates[lost, 0] = nearest[0][y[lost], x[lost]] * width + nearest[1][y[lost], x[lost]]
            self._counts[lost] = 1

    def fill(self, frame: NDArray[np.float32], number: int) -> None:
        """Fill a frame (h, w) in place; its number in the movie seeds the choice of neighbours."""
        flat = frame.reshape(-1)
        flat[self._index] = flat[self._sources(number)]

    def fill_on_device(self, frame: Tensor, number: int) -> None:
        """Fill a frame as `fill` does, where it is."""
        index, source = (
            torch.from_numpy(one).to(frame.device) for one in (self._index, self._sources(number))
        )
        flat = frame.view(-1)
        flat[index] = flat[source]

    def _sources(self, number: int) -> NDArray[np.int64]:
        """Return which pixel each bad one takes its value from."""
        choice = np.random.default_rng(number).random(len(self._index)) * self._counts
        return np.asarray(self._candidates[np.arange(len(self._index)), choice.astype(np.int64)])
