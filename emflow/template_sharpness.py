"""How far a peak of the score stands above what lies about it, beside what the template's own peak does.

A particle's peak is as narrow as the template's correlation with itself. Larger complexes, ribosomes and
membranes, which have the template's size somewhere but not its shape, correlate in a wider place and at many
rotations. The idea is that of the tophat transform of scores in pytom-match-pick (Chaillet and others); the
width is the template's own instead of a count of voxels, and the score stays in units of a correlation.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emflow.template_preparation import Volume

# The sphere's radius is where the template hardly correlates with itself any more: below this. Set on three
# simulated tomograms (benchmarks/RESULTS.md).
_FALLEN_TO = 0.1


@dataclass(frozen=True)
class Sharpness:
    """A sphere about a peak, ``offsets_zyx`` (n, 3) in voxels, and the template's own correlation there.

    ``own`` is the mean over the sphere of the template's correlation with itself, 1 in the middle.
    """

    radius_voxels: int
    offsets_zyx: NDArray[np.int64]
    own: float

    @classmethod
    def of(cls, templates: Volume) -> "Sharpness":
        """Return that of templates (n, box, box, box) of norm 1, as the tomogram shows them."""
        box = templates.shape[-1]
        size, axes = (2 * box,) * 3, (1, 2, 3)
        power = np.abs(scipy.fft.rfftn(templates, s=size, axes=axes)) ** 2
        correlation = scipy.fft.irfftn(power, s=size, axes=axes).mean(axis=0)
        for radius in range(1, box // 2):
            offsets = _sphere(radius)
            own = float(correlation[tuple(offsets.T)].mean())
            if own < _FALLEN_TO:
                break
        return cls(radius, offsets, own)

    def sharpened(self, scores: Volume, peaks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the height (n,) of peaks (n, 3) above the mean about them, in that of the template's own.

        Where a peak is as narrow as the template's own and all about it is 0 it keeps its score. Peaks lie
        at least the radius from the sides of ``scores``.
        """
        heights = scores[tuple(peaks.T)].astype(np.float64)
        about = np.zeros(len(peaks))
        for offset in self.offsets_zyx:
            about += scores[tuple((peaks + offset).T)]
        return np.asarray((heights - about / len(self.offsets_zyx)) / (1 - self.own))


def _sphere(radius: int) -> NDArray[np.int64]:
    """Return the voxels (n, 3) that lie a radius from the middle one, to half a voxel."""
    axis = np.arange(-radius, radius + 1)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(points[np.rint(np.linalg.norm(points, axis=1)) == radius])
