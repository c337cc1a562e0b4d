"""Membranes that the wedge hides are told from those that it shows, and counted apart."""

import numpy as np
import pytest

from emflow.evaluation.membranes import SurfaceCounts, normals_of, shown_by_tilts, surfaces_by_wedge
from emflow.scoring_volumes import surface_dice, surface_voxels
from emflow.template_weighting import wedge_geometry
from emflow.tilt_geometry import TiltGeometry

SIDE = 64
GEOMETRY = wedge_geometry(-60, 60, 2.0)


def _sphere() -> tuple[np.ndarray, np.ndarray]:
    """Return a spherical bilayer, and (x, y, z) of every voxel from its middle."""
    z, y, x = np.indices((SIDE,) * 3) - SIDE // 2
    distance = np.sqrt(z**2 + y**2 + x**2)
    return np.abs(distance - 22) <= 2.3, np.stack([x, y, z], axis=-1)


def test_a_sheet_is_shown_by_the_beam_that_lies_in_it() -> None:
    def normal(degrees: float) -> list[float]:
        return [np.cos(np.radians(degrees)), 0.0, np.sin(np.radians(degrees))]

    # About y: sheets that stand upright are shown, lying ones are not; along the axis all are.
    normals = np.array([normal(0), normal(55), normal(62), normal(66), normal(90), normal(-55), [0, 1, 0]])
    shown = [True, True, True, False, False, True, True]
    assert shown_by_tilts(normals, GEOMETRY).tolist() == shown
    assert shown_by_tilts(-normals, GEOMETRY).tolist() == shown
    one_sided = TiltGeometry.nominal(np.linspace(0, 60, 31), 0.0)
    assert shown_by_tilts(np.array([normal(-30), normal(30)]), one_sided).tolist() == [False, True]


def test_normals_of_a_sphere_point_to_its_middle_or_from_it() -> None:
    membrane, places = _sphere()
    at = np.argwhere(surface_voxels(membrane))[::37]
    radial = places[tuple(at.T)] / np.linalg.norm(places[tuple(at.T)], axis=1, keepdims=True)
    off = np.abs((normals_of(membrane, at) * radial).sum(axis=1))
    assert np.quantile(off, 0.02) > np.cos(np.radians(8))


def test_a_vesicle_without_its_caps_has_them_missing_and_nothing_else() -> None:
    membrane, places = _sphere()
    cap = np.abs(places[..., 2]) > np.tan(np.radians(63)) * np.abs(places[..., 0])
    known = np.ones(membrane.shape, dtype=bool)
    shown, hidden = surfaces_by_wedge(membrane & ~cap, membrane, known, GEOMETRY)
    # Of all directions about the tilt axis those within 63 of 90 degrees are shown.
    assert shown.true / (shown.true + hidden.true) == pytest.approx(63 / 90, abs=0.03)
    assert shown.recall > 0.97
    assert shown.dice > 0.9
    assert hidden.recall < 0.1
    both = SurfaceCounts.total([shown, hidden])
    assert both.dice == pytest.approx(surface_dice(membrane & ~cap, membrane, known))


def test_nothing_found_and_nothing_there() -> None:
    membrane, _ = _sphere()
    nothing, known = np.zeros_like(membrane), np.ones_like(membrane)
    shown, hidden = surfaces_by_wedge(nothing, membrane, known, GEOMETRY)
    assert (shown.dice, hidden.dice, shown.recall) == (0.0, 0.0, 0.0)
    assert np.isnan(surfaces_by_wedge(nothing, nothing, known, GEOMETRY)[0].dice)
    assert np.isnan(SurfaceCounts.total([]).recall)
