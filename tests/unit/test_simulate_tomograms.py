"""Simulated tomograms: seeded, labelled as they are drawn, recorded as physics has it, and read back."""

import filecmp
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from emflow.cli.simulate_tomograms import simulate_tomograms
from emflow.io.mrc_volumes import read_mrc_volume
from emflow.io.star import read_star
from emflow.io.tilt_series import read_tilt_series
from emflow.reconstruction import project
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.shapes import centred_structure
from emflow.simulation.tomograms import Specimen, TomogramRanges, draw_specimen, record_tilt_series
from emflow.simulation.tomograms.canvas import Canvas
from emflow.simulation.tomograms.membranes import add_sheet
from emflow.simulation.tomograms.specimen import apart
from emflow.simulation.tomograms.tilts import dose_symmetric_order
from emflow.tilt_geometry import TiltGeometry
from emflow.tomogram_classes import Label

PIXEL = 10.0
SHAPE = (60, 96, 96)
RANGES = TomogramRanges(thickness_angstrom=(300.0, 380.0), face_tilt_degrees=(0.0, 0.0))


def test_the_same_seed_gives_the_same_specimen() -> None:
    first, second, other = (
        draw_specimen(np.random.default_rng(seed), RANGES, SHAPE, PIXEL) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.volts, second.volts)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert not np.array_equal(first.volts, other.volts)


def test_ice_is_as_thick_as_was_drawn_and_void_is_empty() -> None:
    specimen = draw_specimen(np.random.default_rng(0), RANGES, SHAPE, PIXEL)
    thickness = (specimen.labels != Label.VOID).sum(axis=0).mean() * PIXEL
    assert 270 < thickness < 420
    deep = ndimage.binary_erosion(specimen.labels == Label.VOID, iterations=3)
    assert specimen.volts[deep].max() < -4


def test_a_bilayer_is_two_lines_of_head_groups() -> None:
    ranges = replace(
        RANGES, undulation_angstrom=(0.0, 0.0), membrane_proteins_per_square_micrometre=(0.0, 0.0)
    )
    ranges = replace(
        ranges, head_distance_angstrom=(38.0, 38.0), head_volt=(2.5, 2.5), tail_volt=(-0.3, -0.3)
    )
    fine = 2.5
    canvas = Canvas((40, 160, 160), fine)
    add_sheet(np.random.default_rng(1), ranges, canvas)
    inside = canvas.labels[20] == Label.MEMBRANE
    assert inside.any()
    # Across the sheet: the profile along its own normal, from the distance to its middle.
    deep = ndimage.distance_transform_edt(inside)
    deep[:20] = deep[-20:] = deep[:, :20] = deep[:, -20:] = 0  # at the border it ends as if cut
    middle = canvas.volts[20][deep > 0.9 * deep.max()]
    labelled = canvas.volts[20][inside]
    assert labelled.max() > 1.5
    assert np.median(middle) < 0.4 * labelled.max()  # the tails, between two heads
    assert labelled.mean() > 0  # dark as a whole


def test_compact_things_do_not_overlap_and_lie_where_their_label_is() -> None:
    ranges = replace(RANGES, ribosome_probability=1.0, ribosomes=(4000.0, 8000.0), carbon_probability=0.0)
    ranges = replace(ranges, vesicles=(1e-6, 2e-6), sheet_probability=0.0, complex_probability=0.0)
    specimen = draw_specimen(np.random.default_rng(5), ranges, (60, 160, 160), PIXEL)
    assert len(specimen.particles) >= 2
    centres = np.array([one.centre_angstrom for one in specimen.particles])
    for one in specimen.particles:
        voxel = np.rint(np.array(one.centre_angstrom)[::-1] / PIXEL).astype(int) + np.array([30, 80, 80])
        assert specimen.labels[tuple(voxel)] == Label.RIBOSOME
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    assert distances[distances > 0].min() > 150


BARE = replace(
    RANGES,
    vesicles=(1e-6, 2e-6),
    sheet_probability=0.0,
    ribosome_probability=0.0,
    complex_probability=0.0,
    microtubule_probability=0.0,
    actin_probability=0.0,
    gold_probability=0.0,
    carbon_probability=0.0,
)


@pytest.mark.parametrize("sigma_angstrom", [14.0, 26.0])
def test_no_two_crowders_are_at_one_place(sigma_angstrom: float) -> None:
    """Protein is nowhere denser than protein, and there is as much of it as was asked for."""
    fraction = 0.1
    ranges = replace(
        BARE,
        crowder_volume_fraction=(fraction, fraction),
        crowder_sigma_angstrom=(sigma_angstrom, sigma_angstrom),
    )
    specimen = draw_specimen(np.random.default_rng(3), ranges, (60, 160, 160), PIXEL)
    ice = ndimage.binary_erosion(specimen.labels != Label.VOID, iterations=6, border_value=1)
    protein_volt = 2.6
    assert 0.9 * protein_volt < specimen.volts[ice].max() < 1.1 * protein_volt
    # The density differs between compartments, by a factor of exp(0.5 N(0, 1)).
    assert 0.5 < specimen.volts[ice].mean() / protein_volt / fraction < 2.5


def test_crowders_keep_out_of_membranes() -> None:
    both = []
    for fraction in (0.0, 0.12):
        ranges = replace(BARE, sheet_probability=1.0, crowder_volume_fraction=(fraction, fraction))
        both.append(draw_specimen(np.random.default_rng(8), ranges, (60, 160, 160), PIXEL))
    without, crowded = both
    np.testing.assert_array_equal(without.labels, crowded.labels)
    added = crowded.volts - without.volts
    membrane = without.labels == Label.MEMBRANE
    middle = ndimage.binary_erosion(membrane, iterations=2)
    assert middle.sum() > 100
    assert added.max() > 2
    assert added[membrane].max() < 1.3  # the foot of a Gaussian that stands beside it
    assert added[middle].max() < 0.3


def test_places_are_kept_in_their_order_while_there_is_room() -> None:
    places = np.array([[0, 0, 0], [0, 0, 3], [0, 0, 6], [0, 0, 0], [0, 5, 0]])
    np.testing.assert_array_equal(apart(places, 4.0), [True, False, True, False, True])
    assert apart(np.zeros((1, 3)), 4.0).all()


def test_angles_of_the_truth_are_relions() -> None:
    """RELION's matrix of a particle's angles takes the particle's coordinates to the tomogram's."""
    rng = np.random.default_rng(0)
    light, heavy = rng.normal(0, 4, (2, 200, 3))
    positions = np.concatenate([light, heavy + np.array([0.0, 0.0, 60.0])])
    weights = np.repeat([1.0, 4.0], 200) * 50
    structure = centred_structure("rod", positions, weights, 5.0, rescalable=False)
    ranges = replace(RANGES, ribosome_probability=1.0, ribosomes=(3000.0, 3001.0), carbon_probability=0.0)
    ranges = replace(ranges, vesicles=(1e-6, 2e-6), sheet_probability=0.0, complex_probability=0.0)
    ranges = replace(ranges, microtubule_probability=0.0, actin_probability=0.0, gold_probability=0.0)
    ranges = replace(ranges, crowder_volume_fraction=(0.0, 0.0))
    specimen = draw_specimen(np.random.default_rng(2), ranges, (60, 128, 128), PIXEL, ribosomes=[structure])
    one = specimen.particles[0]
    matrix = Rotation.from_euler("ZYZ", [one.rot_degrees, one.tilt_degrees, one.psi_degrees], degrees=True)
    axis = matrix.as_matrix().T @ np.array([0.0, 0.0, 1.0])  # RELION's matrix is the transpose
    thin = np.array(one.centre_angstrom) - 45 * axis
    thick = np.array(one.centre_angstrom) + 12 * axis
    smooth = ndimage.gaussian_filter(specimen.volts, 1.0)

    def value(point: np.ndarray) -> float:
        return float(smooth[tuple(np.rint(point[::-1] / PIXEL).astype(int) + np.array([30, 64, 64]))])

    assert value(thick) > 1.5 * value(thin) > 0.05


def test_projections_land_where_the_geometry_says() -> None:
    volume = np.zeros((40, 80, 90), dtype=np.float32)
    voxels = np.array([[10, 20, 30], [30, 60, 40], [20, 41, 70]])
    for voxel in voxels:
        volume[tuple(voxel)] = 1
    volume = ndimage.gaussian_filter(volume, 1.5)
    geometry = TiltGeometry(
        np.array([0.0, 2.0, -1.0]),
        np.array([-40.0, 0.0, 50.0]),
        np.array([80.0, 85.0, -10.0]),
        np.array([30.0, -20.0, 0.0]),
        np.array([0.0, 45.0, -10.0]),
    )
    images = project(torch.from_numpy(volume), geometry, PIXEL, (80, 90)).numpy()
    points = (voxels - np.array([20, 40, 45]))[:, ::-1] * PIXEL
    for image, places in zip(images, geometry.project(points) / PIXEL, strict=True):
        for x, y in places:
            column, row = round(x) + 45, round(y) + 40
            box = image[row - 3 : row + 4, column - 3 : column + 4]
            found = np.array(ndimage.center_of_mass(np.clip(box - 0.2 * box.max(), 0, None))) - 3
            np.testing.assert_allclose(found + np.rint([y, x]), [y, x], atol=0.25)


def test_halves_are_independent_counts_of_half_the_dose() -> None:
    specimen = Specimen(np.zeros((20, 64, 64), np.float32), np.zeros((20, 64, 64), np.uint8), PIXEL)
    geometry = TiltGeometry.nominal(np.arange(-40.0, 41.0, 20.0), 0.0)
    ranges = replace(RANGES, detective_quantum_efficiency=(1.0, 1.0))
    series = record_tilt_series(
        np.random.default_rng(0),
        ranges,
        specimen,
        geometry,
        (64, 64),
        exposure_electrons_per_square_angstrom=3.0,
    )
    for even, odd in zip(series.even, series.odd, strict=True):
        assert even.var() == pytest.approx(even.mean(), rel=0.1)  # Poisson
        assert abs(np.corrcoef(even.ravel(), odd.ravel())[0, 1]) < 0.06
    np.testing.assert_allclose(
        (series.even + series.odd).mean((1, 2)), series.expected.mean((1, 2)), rtol=0.01
    )
    # Ice takes electrons the more the further it is tilted.
    assert series.expected[0].mean() < series.expected[2].mean()


def test_what_lies_at_one_side_leaves_no_trace_at_the_other() -> None:
    rng = np.random.default_rng(3)
    volts = np.zeros((20, 64, 64), dtype=np.float32)
    volts[8:12, :, :3] = 10.0
    series = record_tilt_series(
        rng,
        TomogramRanges(defocus_angstrom=(50_000.0, 50_000.0)),
        Specimen(volts, np.zeros(volts.shape, dtype=np.uint8), 10.0),
        TiltGeometry.nominal(np.array([0.0]), 0.0),
        (64, 64),
    )
    image = series.expected[0] / np.median(series.expected[0])
    assert np.ptp(image[:, :16]) > 0.1
    assert np.ptp(image[:, -16:]) < 1e-3


def test_doses_go_from_the_middle_outwards() -> None:
    order = dose_symmetric_order(np.arange(-9.0, 10.0, 3.0))
    assert order.tolist() == [5, 3, 1, 0, 2, 4, 6]


def test_files_are_read_as_a_microscopes(tmp_path: Path) -> None:
    flags = {"shape": (64, 64), "thickness": (200.0, 260.0), "seed": 4}
    simulate_tomograms(output=tmp_path / "one", **flags)
    simulate_tomograms(output=tmp_path / "two", **flags)
    for name in ("TS_01.mrc", "TS_01.mrc.mdoc", "TS_01.rawtlt", "truth/TS_01_tilts.star"):
        assert filecmp.cmp(tmp_path / "one" / name, tmp_path / "two" / name, shallow=False)
    series = read_tilt_series(tmp_path / "one" / "TS_01.mrc.mdoc")
    truth = read_star(tmp_path / "one/truth/TS_01_tilts.star")["TS_01"]
    tilts = [one.tilt_degrees for one in series.exposures]
    np.testing.assert_allclose(tilts, truth["rlnTomoYTilt"].to_numpy(float), atol=0.01)
    doses = [one.pre_exposure_electrons_per_square_angstrom for one in series.exposures]
    np.testing.assert_allclose(doses, truth["rlnMicrographPreExposure"].to_numpy(float), atol=0.01)
    assert abs(series.exposures[0].axis_degrees - float(truth["rlnTomoZRot"].iloc[0])) <= 3.01
    labels = read_mrc_volume(tmp_path / "one/truth/TS_01_labels.mrc")
    assert labels.shape[1:] == (64, 64)
    assert set(np.unique(labels)) <= {label.value for label in Label}


@pytest.mark.parametrize(("kilodalton", "drawn"), [(100.0, False), (500.0, True), (2000.0, False)])
def test_a_molecule_is_a_complex_where_its_mass_is_of_the_range(kilodalton: float, drawn: bool) -> None:
    """What is too small to be seen must not be labelled: a network would learn to see what is not there."""
    ranges = replace(
        RANGES,
        complex_probability=1.0,
        complexes=(20_000.0, 20_001.0),
        vesicles=(1e-6, 2e-6),
        sheet_probability=0.0,
    )
    ball = np.random.default_rng(0).normal(0, 20, (200, 3))
    weights = np.full(200, 1e3 * kilodalton * 2.6 / 0.81 / 200)
    molecule = centred_structure("molecule", ball, weights, 4.0, rescalable=False)
    library = ParticleLibrary("train", procedural=0, models=(molecule,))
    specimen = draw_specimen(np.random.default_rng(1), ranges, SHAPE, PIXEL, library=library)
    assert any(one.label == Label.COMPLEX for one in specimen.particles) == drawn
    assert bool((specimen.labels == Label.COMPLEX).any()) == drawn
