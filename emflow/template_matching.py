"""Template matching in three dimensions: where, and how turned, a tomogram looks most like a template.

The score is the local normalised cross-correlation of Roseman, Acta Cryst. D59 (2003) 1318, within a soft
sphere about each voxel: -1 to 1, whatever the tomogram's brightness there. In emflow's tomograms protein is
dark, as it is recorded, and a template is bright, as maps of atomic models and of the EMDB are: the
tomogram's transfer, which the template is multiplied with, turns it (`emflow.template_weighting`). Nothing is
found in a tomogram whose protein is bright.

The tomogram is worked through in tiles with a margin of the template's box, each voxel's score being what the
whole would give: memory is that of a tile.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, special

from emflow.preprocessing import centre_and_spread
from emflow.symmetry import Matrices
from emflow.template_preparation import Template, Volume
from emflow.template_search import Read, TemplateSearch, standardised
from emflow.volume_picking import best_apart

_TILE_VOXELS = 160
# Set on four simulated tomograms (benchmarks/RESULTS.md).
_DEVIATIONS = 4.0


@dataclass(frozen=True)
class Matches:
    """Peaks of the score, best first.

    ``voxels_zyx`` (n, 3) to a fraction of a voxel; ``scores`` (n,); ``rotations`` (n,) counts in the set that
    was tried. ``spread`` is the standard deviation of the score over voxels and rotations, ``trials`` how
    many of both there are.
    """

    voxels_zyx: NDArray[np.float64]
    scores: NDArray[np.float64]
    rotations: NDArray[np.int64]
    spread: float
    trials: float

    def __len__(self) -> int:
        """Count the peaks."""
        return len(self.scores)

    def chance(self, false_picks: float = 1.0) -> float:
        """Return the score that noise passes so many times in the whole tomogram.

        As if scores were independent and normal about 0 (Rickgauer, Grigorieff and Denk, eLife 6 (2017)
        e25648, eq. 5). Neighbours are not independent, so that noise passes it more rarely; what looks a
        little like the template (membranes, other particles) passes it more often.
        """
        share = min(0.5, false_picks / max(1.0, self.trials))
        return self.spread * float(-special.ndtri(share))

    def threshold(self) -> float:
        """Return a score that particles pass and most of the rest does not.

        Above `chance`, and above the tomogram's usual peak by four of the peaks' own robust deviations:
        most peaks are membranes, gold and other particles, which noise says nothing of. Where more than
        half of all peaks are the particle itself it is too high.
        """
        if not len(self.scores):
            return self.chance()
        usual, deviation = centre_and_spread(self.scores[None])
        return max(self.chance(), usual + _DEVIATIONS * deviation)


def figures_of_merit(scores: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return 0..1 for scores: ``score / (score + threshold)``, 0.5 at the threshold, 0 below 0."""
    positive = np.maximum(scores, 0.0)
    return np.asarray(positive / (positive + max(threshold, 1e-6)))


def match(
    read: Read,
    shape: tuple[int, int, int],
    template: Template,
    rotations: Matrices,
    transfer: Volume,
    *,
    distance_voxels: float,
    centre: float = 0.0,
    spread: float = 1.0,
    clip_spreads: float = 8.0,
    tile_voxels: int = _TILE_VOXELS,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Matches:
    """Find a template in a tomogram.

    Parameters
    ----------
    read
        Gives voxels (z, y, x) of a part of the tomogram, protein dark.
    shape
        (z, y, x) of the tomogram.
    template
        See `Template`.
    rotations
        (n, 3, 3), see `emflow.template_orientations.orientations`.
    transfer
        (box, box, box // 2 + 1), see `emflow.template_weighting.tomogram_transfer`.
    distance_voxels
        Smallest distance of two peaks.
    centre, spread
        Of the tomogram's voxels. Beyond ``clip_spreads`` of it voxels are clamped, as gold is.
    tile_voxels
        Longest side of what is transformed at one time.
    device
        Where to compute.
    progress
        Is told how many tiles are done, of how many.
    """
    search = TemplateSearch(template, rotations, transfer, torch.device(device))
    # A peak is the highest within the cube that fits between two that are just far enough apart.
    reach = max(1, int(distance_voxels / 2 / math.sqrt(3)))
    tiles = list(_tiles(shape, tile_voxels - template.box - 2 * reach))
    found, squares = [], 0.0
    for number, core in enumerate(tiles):
        window = tuple(slice(part.start - reach, part.stop + reach) for part in core)
        half = template.box // 2
        tile = standardised(
            read,
            shape,
            tuple(slice(p.start - half, p.stop + half) for p in window),
            centre=centre,
            spread=spread,
            clip_spreads=clip_spreads,
        )
        scores, best, square = search.scores(tile, reach)
        squares += square
        found.append(_peaks(scores, best, window, shape, reach))
        if progress is not None:
            progress(number + 1, len(tiles))
    table = np.concatenate(found)
    table = table[best_apart(table[:, :3], table[:, 6], distance_voxels)]
    voxels = float(np.prod(shape))
    deviation = math.sqrt(squares / (voxels * search.sampled))
    return Matches(
        table[:, 3:6], table[:, 6], table[:, 7].astype(np.int64), deviation, voxels * len(rotations)
    )


def _tiles(shape: tuple[int, int, int], most: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the parts of a volume, of at most so many voxels a side (and at least 16), slices first."""
    axes = []
    for side in shape:
        count = math.ceil(side / max(16, most))
        edges = np.linspace(0, side, count + 1).round().astype(int)
        axes.append([slice(int(a), int(b)) for a, b in pairwise(edges)])
    yield from product(axes[0], axes[1], axes[2])


def _peaks(
    scores: Volume,
    best: NDArray[np.int32],
    window: tuple[slice, ...],
    shape: tuple[int, int, int],
    reach: int,
) -> NDArray[np.float64]:
    """Return rows of peak (z, y, x), refined (z, y, x), score, rotation: those of the window's core."""
    start = np.array([part.start for part in window])
    outside = [
        (np.arange(part.start, part.stop) < 0) | (np.arange(part.start, part.stop) >= side)
        for part, side in zip(window, shape, strict=True)
    ]
    known = scores.copy()
    known[outside[0]] = -np.inf
    known[:, outside[1]] = -np.inf
    known[:, :, outside[2]] = -np.inf
    highest = ndimage.maximum_filter(known, size=2 * reach + 1, mode="constant", cval=-np.inf)
    peaks = np.argwhere((known == highest) & (known > 0))
    side = np.array(scores.shape)
    peaks = peaks[((peaks >= reach) & (peaks < side - reach)).all(axis=1)]
    middle = scores[tuple(peaks.T)].astype(np.float64)
    refined = peaks.astype(np.float64)
    for axis in range(3):
        step = np.eye(3, dtype=np.int64)[axis]
        before = scores[tuple((peaks - step).T)].astype(np.float64)
        after = scores[tuple((peaks + step).T)].astype(np.float64)
        bend = 2 * middle - before - after
        refined[:, axis] += np.clip(0.5 * (after - before) / np.maximum(bend, 1e-9), -0.5, 0.5)
    # At the tomogram's sides the parabola leads out of it, and the export leaves out what lies there.
    places = np.clip(refined + start, 0, np.array(shape) - 1)
    return np.column_stack([peaks + start, places, middle, best[tuple(peaks.T)]])
