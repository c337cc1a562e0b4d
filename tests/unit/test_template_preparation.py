"""Templates from maps and models: the same whichever they come from, and what is refused."""

import numpy as np
import pytest

from emflow.simulation.shapes import Structure, centred_structure
from emflow.simulation.tomograms.canvas import Canvas
from emflow.template_preparation import (
    TemplateError,
    box_voxels,
    soft_sphere,
    template_from_map,
    template_from_structure,
)


@pytest.fixture(scope="module")
def structure() -> Structure:
    rng = np.random.default_rng(0)
    lobe = np.array([70.0, 0, 0]) + rng.normal(0, 15, (1000, 3))
    points = np.concatenate([rng.normal(0, 30, (3000, 3)), lobe])
    return centred_structure("made-up", points, np.full(4000, 50.0), 3.0, rescalable=False)


def _map(structure: Structure, side: int, pixel: float) -> np.ndarray:
    canvas = Canvas((side, side, side), pixel)
    voxels = structure.positions_angstrom[:, ::-1] / pixel + canvas.centre_voxel
    canvas.add_points(voxels, structure.weights / pixel**3)
    return canvas.rendered()


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@pytest.mark.parametrize(("side", "pixel"), [(80, 4.0), (65, 5.0), (48, 7.0)])
def test_a_map_gives_what_its_model_gives(structure: Structure, side: int, pixel: float) -> None:
    diameter = structure.diameter_angstrom
    wanted = template_from_structure(structure, pixel_size_angstrom=15.0)
    density = 3.0 + _map(structure, side, pixel)  # the background's level is nobody's matter
    got = template_from_map(density, pixel, pixel_size_angstrom=15.0, diameter_angstrom=diameter)
    assert got.box == wanted.box
    assert got.density.shape == (2 * got.box,) * 3
    assert _alike(got.density, wanted.density) > 0.99
    assert got.density.max() == np.abs(got.density).max()


def test_a_template_is_cut_out_by_a_soft_sphere(structure: Structure) -> None:
    template = template_from_structure(structure, pixel_size_angstrom=15.0)
    radius = 1.1 * structure.diameter_angstrom / 15.0 / 2
    assert template.mask[template.box // 2, template.box // 2, template.box // 2] == 1
    assert template.mask.sum() == pytest.approx(4 / 3 * np.pi * (radius + 1) ** 3, rel=0.1)
    edge = np.concatenate([template.density[0].ravel(), template.density[:, -1].ravel()])
    assert np.abs(edge).max() == 0
    np.testing.assert_allclose(soft_sphere(20, 4.0, 3.0)[10, 10, [13, 14, 17, 18]], [1, 1, 0, 0], atol=1e-6)


def test_detail_that_voxels_cannot_hold_is_taken_away() -> None:
    rng = np.random.default_rng(0)
    noise = soft_sphere(96, 30.0, 4.0) * (1 + rng.normal(size=(96,) * 3).astype(np.float32))
    template = template_from_map(noise, 4.0, pixel_size_angstrom=16.0, diameter_angstrom=240.0)
    power = np.abs(np.fft.rfftn(template.density)) ** 2
    along = np.fft.fftfreq(len(template.density))
    # On voxels of half the size, 0.25 is what the tomogram's can hold.
    beyond = np.abs(along) > 0.28
    assert power[beyond, 0, 0].sum() < 1e-3 * power[:, 0, 0].sum()


def test_a_particle_of_few_voxels_is_refused() -> None:
    assert box_voxels(200.0, 20.0) == 20
    with pytest.raises(
        TemplateError, match=r"is 5\.0 voxels across at 20 A.* finer pixel size, 10 A or less"
    ):
        box_voxels(100.0, 20.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda cube: cube[:-2], "is no cube: 40 x 40 x 38 voxels"),
        (lambda cube: np.where(cube == cube.max(), np.nan, cube), "NaN or infinite"),
        (lambda cube: 0 * cube, "is constant"),
        (lambda cube: -cube, "is darker in its middle than outside"),
    ],
)
def test_what_is_no_template_is_refused(change: object, told: str) -> None:
    cube = soft_sphere(40, 10.0, 3.0)
    with pytest.raises(TemplateError, match=told):
        template_from_map(change(cube), 10.0, pixel_size_angstrom=15.0, diameter_angstrom=200.0)  # type: ignore[operator]
