"""Point groups: as many rotations as they should have, closed, and turned as RELION's."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from emflow.symmetry import symmetry_rotations
from emflow.symmetry_names import checked_symmetry

# Order and direction of the axes that RELION 5.0's src/symmetries.cpp builds each group from.
RELION_AXES = {
    "C7": [(7, (0, 0, 1))],
    "D5": [(5, (0, 0, 1)), (2, (1, 0, 0))],
    "T": [(3, (0, 0, 1)), (2, (0, 0.816496, 0.577350))],
    "O": [(3, (0.5773502, 0.5773502, 0.5773502)), (4, (0, 0, 1))],
    "I": [(2, (0, 0, 1)), (5, (0.525731114, 0, 0.850650807)), (3, (0, 0.356822076, 0.934172364))],
    "I1": [
        (2, (1, 0, 0)),
        (5, (0.85065080702670, 0, -0.5257311142635)),
        (3, (0.9341723640, 0.3568220765, 0)),
    ],
    "I2": [(2, (0, 0, 1)), (5, (0.525731114, 0, 0.850650807)), (3, (0, 0.356822076, 0.934172364))],
    "I3": [
        (2, (-0.5257311143, 0, 0.8506508070)),
        (5, (0, 0, 1)),
        (3, (-0.4911234778630044, 0.3568220764705179, 0.7946544753759428)),
    ],
    "I4": [
        (2, (0.5257311143, 0, 0.8506508070)),
        (5, (0.8944271932547096, 0, 0.4472135909903704)),
        (3, (0.4911234778630044, 0.3568220764705179, 0.7946544753759428)),
    ],
}
ORDERS = {"C7": 7, "D5": 10, "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "I4": 60}


def _holds(group: np.ndarray, one: np.ndarray) -> bool:
    return bool((np.abs(group - one).max(axis=(1, 2)) < 1e-5).any())


@pytest.mark.parametrize("name", ORDERS)
def test_groups_are_relion_s(name: str) -> None:
    group = symmetry_rotations(name)
    assert len(group) == ORDERS[name]
    np.testing.assert_array_equal(group[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(group), 1)
    for order, axis in RELION_AXES[name]:
        direction = np.array(axis) / np.linalg.norm(axis)
        assert _holds(group, Rotation.from_rotvec(2 * np.pi / order * direction).as_matrix())
    assert all(_holds(group, one @ other) for one in group[:7] for other in group)


@pytest.mark.parametrize("name", ["T", "O", "I"])
def test_orders_are_those_of_an_independent_group(name: str) -> None:
    """However it is turned, a group has as many rotations by each angle."""
    ours = Rotation.from_matrix(symmetry_rotations(name)).magnitude()
    theirs = Rotation.create_group(name).magnitude()
    np.testing.assert_allclose(np.sort(ours), np.sort(theirs), atol=1e-6)


def test_icosahedra_lie_as_they_are_described() -> None:
    def holds(name: str, order: int, axis: str) -> bool:
        return _holds(
            symmetry_rotations(name), Rotation.from_euler(axis, 360 / order, degrees=True).as_matrix()
        )

    assert all(holds(name, 2, axis) for name in ("I1", "I2") for axis in "xyz")
    assert all(holds(name, 5, "z") and holds(name, 2, "y") for name in ("I3", "I4"))
    for first, second, axis, degrees in (("I1", "I2", "y", 90), ("I3", "I4", "z", 180)):
        turn = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
        turned = turn @ symmetry_rotations(first) @ turn.T
        assert all(_holds(symmetry_rotations(second), one) for one in turned)
        assert not all(_holds(symmetry_rotations(second), one) for one in symmetry_rotations(first))


def test_names_are_read_as_relion_reads_them() -> None:
    assert [checked_symmetry(name) for name in ("c1", " D12 ", "t", "i", "I3")] == [
        "C1",
        "D12",
        "T",
        "I2",
        "I3",
    ]


@pytest.mark.parametrize("name", ["TD", "C0", "D", "C100", "I5", "IH", ""])
def test_other_symmetries_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is none of C1"):
        symmetry_rotations(name)
