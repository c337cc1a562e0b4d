"""The angles of what a template was found in, finer than the rotations that it was looked for in.

Each peak is looked at alone: the template is turned a little, about x, y or z, as long as that correlates
better, and then by half as much. Places and scores are left as they were, so that a threshold that was set
among all peaks still means the same.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from emflow.standardised_tomogram import StandardisedTomogram
from emflow.symmetry import Matrices
from emflow.template_preparation import Template, Volume
from emflow.template_search import TemplateSearch

FINEST_DEGREES = 1.0
# Of one size, before the next smaller.
_MOST_TURNS = 6
_NEIGHBOURS = np.concatenate([np.eye(3), -np.eye(3)])


def refined_rotations(
    tomogram: StandardisedTomogram,
    template: Template,
    voxels_zyx: NDArray[np.float64],
    rotations: Matrices,
    transfer: Volume,
    *,
    step_degrees: float,
    device: torch.device | str = "cpu",
) -> Matrices:
    """Return the rotations (n, 3, 3) about those of peaks that correlate best.

    Parameters
    ----------
    tomogram, template, transfer, device
        As in `emflow.template_matching.match`.
    voxels_zyx
        Of the peaks, (n, 3), to a fraction of a voxel.
    rotations
        Of the peaks, (n, 3, 3).
    step_degrees
        Between the rotations that those were the best of; half of it is tried first, then half of that, and
        so on to `FINEST_DEGREES`.
    """
    search = TemplateSearch(template, rotations, transfer, torch.device(device))
    half = template.box // 2
    found = []
    for voxel, rotation in zip(voxels_zyx, rotations, strict=True):
        middle = np.rint(voxel).astype(int)
        z, y, x = (float(part) for part in voxel - middle)
        around = [slice(int(side) - half, int(side) + half) for side in middle]
        patch = tomogram.window((around[0], around[1], around[2]))
        found.append(_climbed(search, patch, (x, y, z), rotation, step_degrees / 2))
    return np.array(found).reshape(-1, 3, 3)


def _climbed(
    search: TemplateSearch,
    patch: Volume,
    offset_xyz: tuple[float, float, float],
    rotation: Matrices,
    turn_degrees: float,
) -> Matrices:
    """Return the rotation that no small turn makes better any more."""
    voxels = torch.from_numpy(patch).to(search.device)

    def correlations(rotations: Matrices) -> NDArray[np.float64]:
        turned = search.turned(rotations, offset_xyz)
        return np.asarray((turned * voxels).sum(dim=(1, 2, 3), dtype=torch.float64).cpu().numpy())

    best = float(correlations(rotation[None])[0])
    turn = turn_degrees
    while turn >= FINEST_DEGREES:
        small = Rotation.from_rotvec(np.radians(turn) * _NEIGHBOURS).as_matrix()
        for _ in range(_MOST_TURNS):
            tried = small @ rotation
            scores = correlations(tried)
            if scores.max() <= best:
                break
            best, rotation = float(scores.max()), tried[int(np.argmax(scores))]
        turn /= 2
    return rotation
