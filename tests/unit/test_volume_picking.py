"""Picking in three dimensions: peaks of a probability, block by block, and directions from a membrane."""

import numpy as np
import pytest

from emflow.volume_picking import (
    VolumePicks,
    angles_along,
    best_apart,
    find_peaks,
    labels_at,
    membrane_normals,
)

SHAPE = (90, 60, 64)
CENTRES = np.array([[20.0, 20, 20], [20, 20, 40], [44.5, 30, 30], [63, 40, 12], [70, 15, 50]])


def _probability(radius: float = 6.0) -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    total = np.zeros(SHAPE)
    for c in CENTRES:
        distance = np.sqrt((z - c[0]) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2)
        total = np.maximum(total, 1 / (1 + np.exp(distance - radius)))
    return total.astype(np.float32)


def _found(volume: np.ndarray, block_slices: int = 200) -> VolumePicks:
    return find_peaks(
        lambda low, high: volume[low:high],
        SHAPE,
        distance_voxels=12.0,
        floor=0.2,
        block_slices=block_slices,
    )


def test_every_ball_is_picked_once_in_its_middle() -> None:
    picks = _found(_probability())
    order = np.lexsort(picks.voxels_zyx.round().T[::-1])
    expected = CENTRES[np.lexsort(CENTRES.round().T[::-1])]
    np.testing.assert_allclose(picks.voxels_zyx[order], expected, atol=0.5)
    assert picks.figure_of_merit.min() > 0.9
    np.testing.assert_allclose(picks.volume_voxels, 4 / 3 * np.pi * 6**3, rtol=0.1)


@pytest.mark.parametrize("block_slices", [8, 21, 64])
def test_blocks_give_what_the_whole_gives(block_slices: int) -> None:
    rng = np.random.default_rng(0)
    volume = (_probability() * rng.uniform(0.5, 1, SHAPE)).astype(np.float32)
    whole, pieces = _found(volume), _found(volume, block_slices)
    np.testing.assert_allclose(pieces.voxels_zyx, whole.voxels_zyx, atol=1e-5)
    np.testing.assert_allclose(pieces.figure_of_merit, whole.figure_of_merit, atol=1e-6)


def test_of_two_peaks_that_are_too_near_the_higher_stays() -> None:
    z, y, x = np.indices(SHAPE)
    volume = np.zeros(SHAPE, dtype=np.float32)
    for centre, height in ((28, 1.0), (37, 0.8)):
        inside = (z - 40) ** 2 + (y - 30) ** 2 + (x - centre) ** 2 <= 3**2
        volume[inside] = height
    picks = _found(volume)
    assert len(picks) == 1
    assert picks.voxels_zyx[0, 2] < 32


def test_of_equal_peaks_the_first_in_the_volume_stays_whatever_their_order() -> None:
    peaks = np.array([[5.0, 5, 9], [5, 5, 5], [5, 9, 5], [5, 5, 20], [4, 30, 30]])
    heights = np.array([0.7, 0.7, 0.7, 0.7, 0.9])
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(peaks))
        kept = best_apart(peaks[order], heights[order], 4.5)
        assert peaks[order][kept].tolist() == [[4, 30, 30], [5, 5, 5], [5, 5, 20]]


def test_nothing_is_found_in_nothing() -> None:
    assert len(_found(np.zeros(SHAPE, dtype=np.float32))) == 0


def _relion_z_axis(rot: float, tilt: float, psi: float) -> np.ndarray:
    """Return where RELION's matrix of Euler angles takes (0, 0, 1): its third column, written out."""
    del rot
    t, p = np.radians([tilt, psi])
    return np.array([-np.cos(p) * np.sin(t), np.sin(p) * np.sin(t), np.cos(t)])


def test_angles_turn_the_particle_along_the_direction() -> None:
    directions = np.random.default_rng(0).normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.concatenate([directions, np.eye(3), -np.eye(3)])
    for angles, direction in zip(angles_along(directions), directions, strict=True):
        np.testing.assert_allclose(_relion_z_axis(*angles), direction, atol=1e-9)
    np.testing.assert_array_equal(angles_along(np.full((1, 3), np.nan)), [[0, 0, 0]])


def test_normals_of_a_sphere_point_outwards_to_particles_on_it() -> None:
    z, y, x = np.indices(SHAPE)
    centre, radius = np.array([45.0, 30, 32]), 20.0
    distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    membrane = (np.abs(distance - radius) <= 2).astype(np.float32)
    outward = np.array([[0.0, 0, 1], [0, -1, 0], [1, 0, 0], [0.6, 0.0, 0.8], [0, 0.6, -0.8]])  # z y x
    points = centre + (radius + 4) * outward
    normals = membrane_normals(lambda low, high: membrane[low:high], SHAPE, points, reach_voxels=12)
    cosines = (normals * outward[:, ::-1]).sum(axis=1)
    assert cosines.min() > np.cos(np.radians(8))
    far = membrane_normals(
        lambda low, high: membrane[low:high], SHAPE, np.array([[2.0, 2, 2]]), reach_voxels=6
    )
    assert np.isnan(far).all()


def test_labels_are_those_of_the_nearest_voxel_whatever_the_blocks() -> None:
    labels = np.random.default_rng(0).integers(0, 8, size=(11, 6, 7)).astype(np.uint8)
    places = np.random.default_rng(1).uniform(0, np.array(labels.shape) - 1, size=(40, 3))
    places = np.concatenate([places, [[-0.6, 0.0, 0.0], [10.4, 5.4, 6.6]]])
    expected = [labels[tuple(np.clip(np.rint(one).astype(int), 0, (10, 5, 6)))] for one in places]
    for block in (3, 64):
        found = labels_at(lambda first, last: labels[first:last], labels.shape, places, block)
        assert found.tolist() == expected
