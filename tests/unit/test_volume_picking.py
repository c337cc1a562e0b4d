"""Picking in three dimensions: peaks of a probability, block by block, and directions from a membrane."""

import math

import numpy as np
import pytest

from emflow import volume_picking
from emflow.volume_picking import (
    Part,
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


def _found(
    volume: np.ndarray, block: tuple[int, int, int] = (200, 200, 200), distance: float = 12.0
) -> VolumePicks:
    return find_peaks(volume.__getitem__, SHAPE, distance_voxels=distance, floor=0.2, block=block)


def test_every_ball_is_picked_once_in_its_middle() -> None:
    picks = _found(_probability())
    order = np.lexsort(picks.voxels_zyx.round().T[::-1])
    expected = CENTRES[np.lexsort(CENTRES.round().T[::-1])]
    np.testing.assert_allclose(picks.voxels_zyx[order], expected, atol=0.5)
    assert picks.figure_of_merit.min() > 0.9
    np.testing.assert_allclose(picks.volume_voxels, 4 / 3 * np.pi * 6**3, rtol=0.1)


@pytest.mark.parametrize("distance", [5.3, 12.0, 25.0])
@pytest.mark.parametrize("block", [(8, 60, 64), (21, 13, 64), (64, 31, 17)])
def test_blocks_give_what_the_whole_gives(block: tuple[int, int, int], distance: float) -> None:
    rng = np.random.default_rng(0)
    volume = (_probability() * rng.uniform(0.5, 1, SHAPE)).astype(np.float32)
    volume += rng.uniform(0, 0.4, SHAPE).astype(np.float32) * (volume < 0.01)  # peaks at every border
    whole, pieces = _found(volume, distance=distance), _found(volume, block, distance)
    assert len(whole) > 3
    np.testing.assert_allclose(pieces.voxels_zyx, whole.voxels_zyx, atol=1e-9)
    np.testing.assert_array_equal(pieces.figure_of_merit, whole.figure_of_merit)
    np.testing.assert_array_equal(pieces.volume_voxels, whole.volume_voxels)


def test_what_is_held_at_once_follows_the_distance_and_not_the_tomogram(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 1000 A, of voxels of 10 A, still less than what the rule asks for: 2960 MB, 14 bytes a voxel."""
    voxels = []

    def read(part: Part) -> np.ndarray:
        voxels.append(math.prod(one.stop - one.start for one in part))
        return np.zeros((1, 1, 1), dtype=np.float32)

    monkeypatch.setattr(volume_picking, "_peaks_of_block", lambda *_: np.empty((0, 9)))
    assert len(find_peaks(read, (464, 1024, 1440), distance_voxels=100.0, floor=0.2)) == 0
    assert len(voxels) == 8 * 3 * 4
    assert 14 * max(voxels) < 2000e6


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
    normals = membrane_normals(membrane.__getitem__, SHAPE, points, reach_voxels=12)
    cosines = (normals * outward[:, ::-1]).sum(axis=1)
    assert cosines.min() > np.cos(np.radians(8))
    far = membrane_normals(membrane.__getitem__, SHAPE, np.array([[2.0, 2, 2]]), reach_voxels=6)
    assert np.isnan(far).all()


def test_labels_are_those_of_the_nearest_voxel_whatever_the_blocks() -> None:
    labels = np.random.default_rng(0).integers(0, 8, size=(11, 6, 7)).astype(np.uint8)
    places = np.random.default_rng(1).uniform(0, np.array(labels.shape) - 1, size=(40, 3))
    places = np.concatenate([places, [[-0.6, 0.0, 0.0], [10.4, 5.4, 6.6]]])
    expected = [labels[tuple(np.clip(np.rint(one).astype(int), 0, (10, 5, 6)))] for one in places]
    for block in (3, 64):
        found = labels_at(lambda first, last: labels[first:last], labels.shape, places, block)
        assert found.tolist() == expected
