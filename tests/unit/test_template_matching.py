"""Template matching: a template is found where it was put and as it was turned, tile by tile as at once."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from emflow.simulation.shapes import Structure, centred_structure
from emflow.simulation.tomograms.canvas import Canvas
from emflow.standardised_tomogram import StandardisedTomogram
from emflow.template_matching import Matches, figures_of_merit, match
from emflow.template_orientations import misorientation_degrees, orientations, relion_angles, rotations_of
from emflow.template_preparation import template_from_structure
from emflow.template_refinement import refined_rotations
from emflow.template_search import TemplateSearch
from emflow.template_sharpness import Sharpness
from emflow.template_weighting import TiltOptics, tomogram_transfer, wedge_geometry
from emflow.tilt_geometry import TiltGeometry

PIXEL = 20.0
STEP = 30.0
SHAPE = (36, 42, 40)
# Voxels (z, y, x), and RELION's angles: apart by more than the particle, one at a fraction of a voxel.
PLACES = np.array([[12.0, 12.0, 12.0], [22.4, 28.7, 13.2], [18.0, 20.0, 30.0]])
ANGLES = np.array([[30.0, 40.0, 50.0], [10.0, 100.0, -70.0], [-100.0, 150.0, 20.0]])


def _lopsided() -> Structure:
    """Return a particle 240 A long that no turn maps to itself."""
    rng = np.random.default_rng(3)
    lobes = np.array([[0.0, 0, 70], [0, 0, -70], [60, 0, 20], [0, 75, -40], [-30, -50, 60]])
    sizes = np.array([34.0, 26.0, 24.0, 28.0, 20.0])
    points = np.concatenate(
        [lobe + size * rng.normal(size=(400, 3)) / 2 for lobe, size in zip(lobes, sizes, strict=True)]
    )
    weights = np.repeat(sizes**3, 400)
    return centred_structure("lopsided", points, weights, 6.0, rescalable=False)


def _put(structure: Structure, places: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return a volume with particles at voxels, turned by RELION's angles as scipy has them."""
    canvas = Canvas(SHAPE, PIXEL)
    for place, angle in zip(places, angles, strict=True):
        turn = Rotation.from_euler("ZYZ", angle, degrees=True).inv()
        canvas.add_points(
            turn.apply(structure.positions_angstrom)[:, ::-1] / PIXEL + place, structure.weights
        )
    return canvas.rendered()


def _seen(volume: np.ndarray, geometry: TiltGeometry, noise: float) -> np.ndarray:
    """Return a volume as a tilt series shows it, dark, in noise of so many of its deviations."""
    side = 2 * max(volume.shape)
    padded = np.zeros((side,) * 3, dtype=np.float32)
    padded[tuple(slice(0, n) for n in volume.shape)] = volume
    spectrum = np.fft.rfftn(padded) * tomogram_transfer(side, PIXEL, geometry)
    seen = np.fft.irfftn(spectrum, s=padded.shape, axes=(0, 1, 2))[tuple(slice(0, n) for n in volume.shape)]
    seen = seen / seen.std()
    return (seen + noise * np.random.default_rng(1).normal(size=seen.shape)).astype(np.float32)


def _tomogram(volume: np.ndarray, centre: float = 0.0) -> StandardisedTomogram:
    return StandardisedTomogram(volume.__getitem__, SHAPE, centre, float(volume.std()))


def _found(
    volume: np.ndarray, rotations: np.ndarray, *, centre: float = 0.0, tile_voxels: int = 96
) -> Matches:
    template = template_from_structure(_lopsided(), pixel_size_angstrom=PIXEL)
    return match(
        _tomogram(volume, centre),
        template,
        rotations,
        tomogram_transfer(template.box, PIXEL, wedge_geometry(-60, 60, 3.0)),
        distance_voxels=8.0,
        tile_voxels=tile_voxels,
    )


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    return _seen(_put(_lopsided(), PLACES, ANGLES), wedge_geometry(-60, 60, 3.0), 1.5)


@pytest.fixture(scope="module")
def found(noisy: np.ndarray) -> Matches:
    return _found(noisy, orientations(STEP))


@pytest.fixture(scope="module")
def few(found: Matches) -> np.ndarray:
    """The rotations that the particles were found at, and some others: enough where angles do not matter."""
    return orientations(STEP)[[*found.rotations[: len(PLACES)], *range(0, 500, 100)]]


def test_particles_are_found_at_their_places_and_angles(found: Matches) -> None:
    best = found.voxels_zyx[: len(PLACES)]
    apart = np.linalg.norm(PLACES[:, None] - best[None], axis=2)
    nearest = apart.argmin(axis=1)
    assert sorted(nearest) == [0, 1, 2]
    assert apart.min(axis=1).max() < 1
    angles = relion_angles(orientations(STEP)[found.rotations[nearest]])
    assert misorientation_degrees(rotations_of(angles), rotations_of(ANGLES)).max() < STEP


def test_angles_are_refined_about_each_peak(noisy: np.ndarray) -> None:
    """Off by up to 18 degrees before, as after a search in steps of 30; noise leaves one or two."""
    rng = np.random.default_rng(5)
    axes = rng.normal(size=(len(PLACES), 3))
    axes *= np.radians([[18.0], [12.0], [15.0]]) / np.linalg.norm(axes, axis=1, keepdims=True)
    started = Rotation.from_rotvec(axes).as_matrix() @ rotations_of(ANGLES)
    template = template_from_structure(_lopsided(), pixel_size_angstrom=PIXEL)
    refined = refined_rotations(
        _tomogram(noisy),
        template,
        PLACES,
        started,
        tomogram_transfer(template.box, PIXEL, wedge_geometry(-60, 60, 3.0)),
        step_degrees=STEP,
    )
    before = misorientation_degrees(started, rotations_of(ANGLES))
    after = misorientation_degrees(refined, rotations_of(ANGLES))
    np.testing.assert_allclose(before, [18, 12, 15])
    assert after.max() < 3


def test_no_peaks_have_no_angles(noisy: np.ndarray) -> None:
    template = template_from_structure(_lopsided(), pixel_size_angstrom=PIXEL)
    transfer = tomogram_transfer(template.box, PIXEL, wedge_geometry(-60, 60, 3.0))
    none = refined_rotations(
        _tomogram(noisy),
        template,
        np.zeros((0, 3)),
        np.zeros((0, 3, 3)),
        transfer,
        step_degrees=STEP,
    )
    assert none.shape == (0, 3, 3)


def test_noise_stays_below_the_threshold(found: Matches) -> None:
    threshold = found.threshold()
    assert (found.scores > threshold).sum() == len(PLACES)
    assert found.scores[len(PLACES)] < 0.8 * threshold
    merits = figures_of_merit(found.scores, threshold)
    np.testing.assert_array_equal(merits > 0.5, found.scores > threshold)
    assert figures_of_merit(np.array([-0.1, threshold]), threshold).tolist() == [0.0, 0.5]


def test_nearly_nothing_of_noise_alone_passes_the_threshold() -> None:
    """Tens of peaks, of which one or two would pass a threshold that is set at a share of them."""
    noise = np.random.default_rng(8).normal(size=SHAPE).astype(np.float32)
    found = _found(noise, orientations(STEP)[::20])
    assert len(found) > 50
    assert (found.scores > found.threshold()).sum() <= 1


def test_what_is_wide_loses_more_of_its_score_than_the_template() -> None:
    """A ball twice as wide correlates with much of the template, in a place as wide as itself."""
    template = template_from_structure(_lopsided(), pixel_size_angstrom=PIXEL)
    search = TemplateSearch(
        template,
        np.eye(3)[None],
        tomogram_transfer(template.box, PIXEL, wedge_geometry(-60, 60, 3.0)),
        torch.device("cpu"),
    )
    turned = search.turned(np.eye(3)[None]).numpy()
    sharpness = Sharpness.of(turned)
    assert -0.2 < sharpness.own < 0.1
    assert 1 < sharpness.radius_voxels < template.box // 3
    distance = np.linalg.norm(sharpness.offsets_zyx, axis=1)
    assert np.abs(distance - sharpness.radius_voxels).max() <= 0.5
    np.testing.assert_array_equal(sharpness.offsets_zyx.sum(axis=0), 0)
    # The template's own peak keeps its score.
    own = ndimage.correlate(turned[0], turned[0], mode="constant")
    middle = np.full((1, 3), template.box // 2)
    assert sharpness.sharpened(own, middle)[0] == pytest.approx(1.0, abs=0.02)
    wide = ndimage.gaussian_filter(own, 3.0)
    wide /= wide[tuple(middle[0])]
    assert sharpness.sharpened(wide.astype(np.float32), middle)[0] < 0.5


def test_some_of_the_peaks_have_a_threshold_of_their_own(found: Matches) -> None:
    low = found.where(found.scores < found.scores[len(PLACES) - 1])
    assert len(low) == len(found) - len(PLACES)
    assert low.threshold() <= found.threshold()


def test_tiles_give_what_the_whole_gives(noisy: np.ndarray, few: np.ndarray) -> None:
    whole, tiled = _found(noisy, few), _found(noisy, few, tile_voxels=48)
    assert len(tiled) == len(whole)
    np.testing.assert_allclose(tiled.voxels_zyx, whole.voxels_zyx, atol=1e-3)
    np.testing.assert_allclose(tiled.scores, whole.scores, atol=1e-5)
    np.testing.assert_array_equal(tiled.rotations[:3], whole.rotations[:3])


def test_bright_particles_are_not_dark_ones(noisy: np.ndarray, few: np.ndarray) -> None:
    dark, bright = _found(noisy, few), _found(-noisy, few)
    assert bright.scores[0] < 0.6 * dark.scores[2]
    apart = np.linalg.norm(PLACES[:, None] - bright.voxels_zyx[None, :3], axis=2)
    assert (apart.min(axis=1) > 2).any()


def test_scores_do_not_hang_on_brightness(noisy: np.ndarray, few: np.ndarray) -> None:
    np.testing.assert_allclose(
        _found(noisy, few, centre=0.3).scores[:3], _found(noisy, few).scores[:3], atol=0.02
    )


def test_nothing_is_found_in_nothing(few: np.ndarray) -> None:
    assert not (_found(np.zeros(SHAPE, dtype=np.float32), few).scores > 0.01).any()


def test_the_wedge_of_a_tilt_series_is_left_out() -> None:
    transfer = tomogram_transfer(32, PIXEL, wedge_geometry(-60, 60, 3.0))
    z, x = np.mgrid[-16:16, 0:17]
    plane = np.fft.fftshift(transfer[:, 0], axes=0)
    angle = np.degrees(np.arctan2(np.abs(z), x))
    far = (np.hypot(z, x) > 4) & (np.hypot(z, x) < 15)
    assert np.abs(plane[far & (angle > 75)]).max() == 0
    np.testing.assert_allclose(plane[far & (angle < 50)], -1, atol=0.2)
    # The axis lies along y: turned by 90 degrees about z, in the image and out of it again, it stays.
    turned = TiltGeometry.nominal(np.linspace(-60, 60, 41), 90.0)
    np.testing.assert_allclose(tomogram_transfer(32, PIXEL, turned), transfer, atol=1e-5)


@pytest.mark.parametrize(
    ("correction", "sign"), [("none", {-1.0, 1.0}), ("phase_flip", {-1.0}), ("deconvolve", {-1.0})]
)
def test_contrast_transfer_keeps_its_signs_unless_they_were_undone(correction: str, sign: set) -> None:
    tilts = np.linspace(-60, 60, 41)
    optics = TiltOptics(
        np.full(41, 40_000.0),
        np.zeros(41),
        np.zeros(41),
        300.0,
        2.7,
        0.1,
        correction=correction,  # type: ignore[arg-type]
    )
    transfer = tomogram_transfer(64, 8.0, TiltGeometry.nominal(tilts, 0.0), optics)
    along = transfer[0, 0, 1:31]
    assert set(np.sign(along[np.abs(along) > 0.05])) == sign
    # pi lambda dz k^2 + asin(0.1) = pi / 2: the first maximum of 40 000 A at 300 kV lies at 1 / 41 A.
    first = np.argmax(np.abs(transfer[0, 0, :16])) / (64 * 8.0)
    if correction == "none":
        assert first == pytest.approx(1 / 41, abs=1 / 512)


def test_exposure_takes_the_fine_detail_of_late_tilts() -> None:
    optics = TiltOptics(
        np.full(3, 40_000.0), np.zeros(3), np.array([2.0, 60.0, 60.0]), 300.0, 2.7, 0.1, "none", False
    )
    frequency = np.array([0.01, 0.04])
    early, late = optics.transfer(0, frequency), optics.transfer(1, frequency)
    assert late[0] / early[0] > late[1] / early[1]
    np.testing.assert_allclose(
        late / early, np.exp(-0.5 * 58 / (0.245 * frequency**-1.665 + 2.81)), rtol=0.01
    )


def test_the_threshold_stands_out_of_peaks_that_are_no_noise() -> None:
    """Five particles among two hundred other peaks."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([np.full(5, 0.6), np.sort(rng.normal(0.3, 0.04, 200))[::-1]])
    found = Matches(np.zeros((205, 3)), scores, np.zeros(205, dtype=np.int64))
    assert 0.4 < found.threshold() < 0.55
    assert found.where(scores < 0).threshold() == 1.0
