"""Template matching in three dimensions: where, and how turned, a tomogram looks most like a template.

The score is the local normalised cross-correlation of Roseman, Acta Cryst. D59 (2003) 1318, within a soft
sphere about each voxel: -1 to 1, whatever the tomogram's brightness there. Of its peaks only what stands
above their surroundings counts (`emflow.template_sharpness`). In emflow's tomograms protein is
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
from scipy import ndimage

from emflow.preprocessing import centre_and_spread
from emflow.standardised_tomogram import Part, StandardisedTomogram
from emflow.symmetry import Matrices
from emflow.template_preparation import Template, Volume
from emflow.template_search import TemplateSearch
from emflow.template_sharpness import Sharpness
from emflow.volume_picking import best_apart

_TILE_VOXELS = 160
# The template's own peak is measured at so many of the rotations.
_SAMPLED_ROTATIONS = 8
# Set on four simulated tomograms (benchmarks/RESULTS.md).
_DEVIATIONS = 4.0


@dataclass(frozen=True)
class Matches:
    """Peaks of the score, best first.

    ``voxels_zyx`` (n, 3) to a fraction of a voxel; ``scores`` (n,) sharpened, see
    `emflow.template_sharpness`; ``rotations`` (n,) counts in the set that was tried.
    """

    voxels_zyx: NDArray[np.float64]
    scores: NDArray[np.float64]
    rotations: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the peaks."""
        return len(self.scores)

    def where(self, keep: NDArray[np.bool_]) -> "Matches":
        """Return some of the peaks."""
        return Matches(self.voxels_zyx[keep], self.scores[keep], self.rotations[keep])

    def threshold(self) -> float:
        """Return a score that particles pass and most of the rest does not.

        Above the tomogram's usual peak by four of the peaks' own robust deviations: nearly all peaks are
        noise, membranes, gold and other particles. Where more than half of them are the particle itself it
        is too high.
        """
        if not len(self.scores):
            return 1.0
        usual, deviation = centre_and_spread(self.scores[None])
        return usual + _DEVIATIONS * deviation


def figures_of_merit(scores: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return 0..1 for scores: ``score / (score + threshold)``, 0.5 at the threshold, 0 below 0."""
    positive = np.maximum(scores, 0.0)
    return np.asarray(positive / (positive + max(threshold, 1e-6)))


def match(
    tomogram: StandardisedTomogram,
    template: Template,
    rotations: Matrices,
    transfer: Volume,
    *,
    distance_voxels: float,
    tile_voxels: int = _TILE_VOXELS,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Matches:
    """Find a template in a tomogram.

    Parameters
    ----------
    tomogram
        Protein dark.
    template
        See `Template`.
    rotations
        (n, 3, 3), see `emflow.template_orientations.orientations`.
    transfer
        (box, box, box // 2 + 1), see `emflow.template_weighting.tomogram_transfer`.
    distance_voxels
        Smallest distance of two peaks.
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
    shape = tomogram.shape
    some = rotations[np.linspace(0, len(rotations) - 1, _SAMPLED_ROTATIONS).astype(int)]
    sharpness = Sharpness.of(search.turned(some).cpu().numpy())
    margin = max(reach, sharpness.radius_voxels)
    tiles = list(_tiles(shape, tile_voxels - template.box - 2 * margin))
    found = []
    for number, core in enumerate(tiles):
        window = tuple(slice(part.start - margin, part.stop + margin) for part in core)
        half = template.box // 2
        z, y, x = (slice(part.start - half, part.stop + half) for part in window)
        tile = tomogram.window((z, y, x))
        scores, best = search.scores(tile)
        peaks = _peaks(scores, window, shape, reach, margin)
        places = np.column_stack([peaks, refined_peaks(scores, peaks)]) + np.tile(
            [p.start for p in window], 2
        )
        found.append(np.column_stack([places, sharpness.sharpened(scores, peaks), best[tuple(peaks.T)]]))
        if progress is not None:
            progress(number + 1, len(tiles))
    table = np.concatenate(found)
    table = table[best_apart(table[:, :3], table[:, 6], distance_voxels)]
    # At the tomogram's sides the parabola leads out of it, and the export leaves out what lies there.
    places = np.clip(table[:, 3:6], 0, np.array(shape) - 1)
    return Matches(places, table[:, 6], table[:, 7].astype(np.int64))


def _tiles(shape: tuple[int, int, int], most: int) -> Iterator[Part]:
    """Yield the parts of a volume, of at most so many voxels a side (and at least 16), slices first."""
    axes = []
    for side in shape:
        count = math.ceil(side / max(16, most))
        edges = np.linspace(0, side, count + 1).round().astype(int)
        axes.append([slice(int(a), int(b)) for a, b in pairwise(edges)])
    yield from product(axes[0], axes[1], axes[2])


def _peaks(
    scores: Volume, window: tuple[slice, ...], shape: tuple[int, int, int], reach: int, margin: int
) -> NDArray[np.int64]:
    """Return peaks (n, 3), highest within ``reach``, of a window less its margin that lie in the tomogram."""
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
    return peaks[((peaks >= margin) & (peaks < side - margin)).all(axis=1)]


def refined_peaks(scores: Volume, peaks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return peaks (n, 3) to a fraction of a voxel, by a parabola along each axis."""
    middle = scores[tuple(peaks.T)].astype(np.float64)
    refined = peaks.astype(np.float64)
    for axis in range(3):
        step = np.eye(3, dtype=np.int64)[axis]
        before = scores[tuple((peaks - step).T)].astype(np.float64)
        after = scores[tuple((peaks + step).T)].astype(np.float64)
        bend = 2 * middle - before - after
        refined[:, axis] += np.clip(0.5 * (after - before) / np.maximum(bend, 1e-9), -0.5, 0.5)
    return refined
