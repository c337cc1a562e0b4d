"""The simulator's physics: counts, dose, CTF, truth."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import scipy.fft
import torch

from emflow.ctf import ctf_2d, electron_wavelength_angstrom
from emflow.simulation import ParticleLibrary, Scene, SimulationRanges, draw_scene, draw_scenes
from emflow.simulation.contaminants import FieldOfView, Layers, junk_at, kinds, taken_at
from emflow.simulation.detector import detect, noise_transfer
from emflow.simulation.fields import Noise, smooth_field
from emflow.simulation.frequencies import Frequencies
from emflow.simulation.imaging import _visibility, image_plans
from emflow.simulation.microscope import Exposure, Microscope
from emflow.simulation.plan import draw_plan
from emflow.simulation.shapes import Structure, centred_structure
from emflow.training.picker import RANGES

ONE = (1.0, 1.0)
ZERO = (0.0, 0.0)
# Nothing but electrons: a perfect detector, ice of even thickness and without structure.
PLAIN = replace(
    SimulationRanges().clean(),
    voltages_kilovolt=(300.0,),
    voltage_weights=ONE[:1],
    detective_quantum_efficiency_at_zero=ONE,
    detective_quantum_efficiency_at_nyquist=ONE,
    modulation_transfer_at_nyquist=ONE,
    ice_structure=ZERO,
    ice_gradient=ZERO,
    background_amplitude=ZERO,
    ice_thickness_angstrom=(300.0, 300.0),
    phase_plate_probability=0.0,
    second_species_probability=0.0,
    drift_probability=0.0,
)
EMPTY = replace(PLAIN, empty_probability=1.0)


def bead(radius_angstrom: float = 50.0) -> Structure:
    """A solid ball."""
    steps = np.arange(-radius_angstrom, radius_angstrom + 1, 4.0)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    grid = grid[np.linalg.norm(grid, axis=1) <= radius_angstrom]
    return centred_structure("bead", grid, np.full(len(grid), 2.6 * 64), 2.4, rescalable=False)


@pytest.fixture(scope="module")
def library() -> ParticleLibrary:
    return ParticleLibrary("train", procedural=12)


@pytest.fixture(scope="module")
def beads() -> ParticleLibrary:
    return ParticleLibrary("train", procedural=0, models=[bead()])


def at_dose(ranges: SimulationRanges, dose: float) -> SimulationRanges:
    return replace(ranges, dose_electrons_per_square_angstrom=(dose, dose))


@pytest.mark.parametrize("pixel_size", [0.5, 4.0])  # 4 and 300 electrons a pixel: Poisson and normal deviates
def test_counts_are_poisson(beads: ParticleLibrary, pixel_size: float) -> None:
    scene = draw_scene(
        1, shape=(256, 256), library=beads, ranges=at_dose(EMPTY, 20.0), pixel_size_angstrom=pixel_size
    )
    mean = 20.0 * pixel_size**2 * math.exp(-300 / 3000)
    assert scene.clean.std() < 1e-3 * mean
    assert scene.image.mean() == pytest.approx(mean, rel=4 / math.sqrt(mean * 256**2))
    # The variance of 65536 samples is known to 0.6 %.
    assert scene.image.var() / scene.image.mean() == pytest.approx(1.0, abs=0.03)


def test_few_electrons_are_whole_ones(beads: ParticleLibrary) -> None:
    scene = draw_scene(1, shape=(64, 64), library=beads, ranges=at_dose(EMPTY, 1.0), pixel_size_angstrom=1.0)
    np.testing.assert_allclose(scene.image, np.rint(scene.image), atol=1e-5)
    assert scene.image.max() >= 3


def test_counts_scale_with_dose(beads: ParticleLibrary) -> None:
    low, high = (
        draw_scene(2, shape=(128, 128), library=beads, ranges=at_dose(EMPTY, dose), pixel_size_angstrom=3.0)
        for dose in (10.0, 40.0)
    )
    assert high.clean.mean() == pytest.approx(4 * low.clean.mean(), rel=1e-5)
    assert high.image.var() == pytest.approx(4 * low.image.var(), rel=0.05)


def test_relative_signal_does_not_depend_on_dose(beads: ParticleLibrary) -> None:
    # Without rescaling to a range of signal to noise, contrast is the specimen's alone.
    ranges = replace(PLAIN, signal_to_noise=(1e-9, 1e9))
    low, high = (
        draw_scene(3, shape=(128, 128), library=beads, ranges=at_dose(ranges, dose), pixel_size_angstrom=4.0)
        for dose in (10.0, 40.0)
    )
    np.testing.assert_allclose(low.clean / low.clean.mean(), high.clean / high.clean.mean(), atol=1e-4)
    assert high.snr == pytest.approx(4 * low.snr, rel=0.01)


def test_noise_power_is_that_of_the_quantum_efficiency() -> None:
    size, pixel, raw = 256, 2.0, 2.0
    frequency = Frequencies((size, size), torch.device("cpu")).radius / pixel
    at_nyquist, at_zero, efficiency_at_nyquist = torch.tensor([0.5, 0.8, 0.3]).unbind()
    share = (2 * raw * frequency).clamp(max=1)
    transfer = noise_transfer(share, at_nyquist, at_zero, efficiency_at_nyquist)[None].repeat(8, 1, 1)
    expected = torch.full((8, size, size), 400.0)
    noise = (detect([Noise(n) for n in range(8)], expected, transfer, [400.0] * 8) - expected).numpy()
    power = np.mean(np.abs(np.fft.rfft2(noise)) ** 2, axis=0) / size**2
    radius = frequency.numpy()
    for low, high in ((0.01, 0.05), (0.12, 0.13), (0.23, 0.25)):
        ring = (radius > low) & (radius < high)
        part = float(radius[ring].mean()) * 4
        modulation, efficiency = 1 - 0.5 * part, 0.8 - 0.5 * part
        assert power[ring].mean() == pytest.approx(400 * modulation**2 / efficiency, rel=0.05)


def test_contrast_is_transferred_by_the_ctf_that_the_fit_assumes() -> None:
    rng = np.random.default_rng(4)
    shape = (96, 128)
    ranges = replace(PLAIN, astigmatism_angstrom=(300.0, 800.0), phase_plate_probability=0.5)
    exposures = [Exposure.draw(rng, ranges, pixel) for pixel in (0.8, 1.7, 6.0)]
    depths = [-150.0, 0.0, 400.0]
    found = Microscope(exposures, Frequencies(shape, torch.device("cpu"))).contrast_transfer(depths)
    for one, depth, transfer in zip(exposures, depths, found, strict=True):
        expected = 2 * ctf_2d(
            shape,
            one.optics.pixel_size_angstrom,
            defocus_u_angstrom=one.ctf.defocus_u_angstrom + depth,
            defocus_v_angstrom=one.ctf.defocus_v_angstrom + depth,
            defocus_angle_degrees=one.ctf.defocus_angle_degrees,
            voltage_kilovolt=one.optics.voltage_kilovolt,
            spherical_aberration_millimetre=one.optics.spherical_aberration_millimetre,
            amplitude_contrast=one.optics.amplitude_contrast,
            phase_shift_degrees=one.ctf.phase_shift_degrees,
            b_factor_square_angstrom=one.b_factor_square_angstrom,
        )
        # Single precision of a phase of up to some hundred radian
        np.testing.assert_allclose(transfer.numpy(), expected, atol=5e-4)


def test_halves_are_independent_and_sum_to_the_image(library: ParticleLibrary) -> None:
    # A gain error or a bad pixel is the camera's, and so in both.
    ranges = SimulationRanges().clean()
    scene = draw_scene(5, shape=(256, 256), library=library, ranges=ranges, halves=True)
    assert scene.even is not None
    assert scene.odd is not None
    np.testing.assert_array_equal(scene.even + scene.odd, scene.image)
    noise = [half - scene.clean / 2 for half in (scene.even, scene.odd)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02
    assert noise[0].var() == pytest.approx(noise[1].var(), rel=0.05)
    whole = draw_scene(5, shape=(256, 256), library=library, ranges=ranges)
    assert whole.even is None
    np.testing.assert_array_equal(whole.clean, scene.clean)
    assert (whole.image - whole.clean).var() == pytest.approx((noise[0] + noise[1]).var(), rel=0.05)


def test_thon_rings_of_carbon_are_dark_at_the_zeros(beads: ParticleLibrary) -> None:
    ranges = replace(
        at_dose(EMPTY, 80.0),
        support_film_probability=1.0,
        support_film_angstrom=(120.0, 120.0),
        astigmatism_angstrom=ZERO,
        b_factor_square_angstrom=ZERO,
        amplitude_contrast=(0.1, 0.1),
        defocus_angstrom=(15000.0, 15000.0),
        corrected_probability=1.0,
        corrected_spherical_aberration_millimetre=ZERO,
    )
    size, pixel = 512, 2.0
    scene = draw_scene(6, shape=(size, size), library=beads, ranges=ranges, pixel_size_angstrom=pixel)
    power = np.abs(scipy.fft.rfft2(scene.image - scene.image.mean())) ** 2
    k_y, k_x = np.fft.fftfreq(size, pixel)[:, None], np.fft.rfftfreq(size, pixel)[None, :]
    frequency = np.hypot(k_x, k_y)
    unit = electron_wavelength_angstrom(300.0) * 15000.0

    def ring(phase_over_pi: float) -> float:
        k = math.sqrt((phase_over_pi - math.asin(0.1) / math.pi) / unit)
        return float(power[np.abs(frequency - k) < 0.001].mean())

    floor = float(np.median(scene.image)) * size**2  # shot noise of a perfect detector
    for n in (1, 2, 3):
        dark, bright = ring(n), 0.5 * (ring(n - 0.5) + ring(n + 0.5))
        assert dark - floor < 0.25 * (bright - floor)
        assert bright > 1.5 * floor


@pytest.mark.parametrize("diameter_pixels", [22.0, 60.0])  # kept projections, and each from its blobs
def test_centres_are_true(beads: ParticleLibrary, diameter_pixels: float) -> None:
    ranges = replace(
        PLAIN,
        coverage=(0.1, 0.1),
        minimum_distance_diameters=(1.6, 1.6),
        overlap_probability=0.0,
        astigmatism_angstrom=ZERO,
        defocus_angstrom=(8000.0, 8000.0),
        signal_to_noise=(1e-9, 1e9),
    )
    side = int(diameter_pixels * 12)
    scene = draw_scene(7, shape=(side, side), library=beads, ranges=ranges, diameter_pixels=diameter_pixels)
    half = int(0.7 * diameter_pixels)
    dark = float(np.median(scene.clean)) - scene.clean
    checked = 0
    for y, x in scene.centres_yx:
        top, left = round(y) - half, round(x) - half
        if min(top, left) < 0 or max(top, left) + 2 * half + 1 > side:
            continue
        stamp = np.clip(dark[top : top + 2 * half + 1, left : left + 2 * half + 1], 0, None)
        rows, columns = np.indices(stamp.shape)
        found = (top + (stamp * rows).sum() / stamp.sum(), left + (stamp * columns).sum() / stamp.sum())
        assert found == pytest.approx((y, x), abs=0.5)
        checked += 1
    assert checked >= 3


def test_particles_are_dark(library: ParticleLibrary) -> None:
    ranges = replace(PLAIN, signal_to_noise=(1e-9, 1e9), amplitude_contrast=(0.1, 0.1), coverage=(0.1, 0.1))
    darker = 0
    for seed in range(8):
        scene = draw_scene(seed, shape=(192, 192), library=library, ranges=ranges)
        nearest = np.rint(scene.centres_yx).astype(int)
        y, x = np.indices(scene.clean.shape)
        inside = np.zeros(scene.clean.shape, dtype=bool)
        for row, column in nearest:
            inside |= (y - row) ** 2 + (x - column) ** 2 < (0.3 * scene.diameter_pixels) ** 2
        darker += bool(scene.clean[inside].mean() < np.median(scene.clean))
    assert darker == 8


def same(first: Scene, second: Scene) -> bool:
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name), equal_nan=True)
        if isinstance(getattr(first, field.name), np.ndarray)
        else repr(getattr(first, field.name)) == repr(getattr(second, field.name))
        for field in fields(Scene)
    )


def test_a_seed_decides_everything() -> None:
    settings = {"shape": (96, 128), "halves": True}
    first = ParticleLibrary("train", procedural=8)
    scenes = [draw_scene(seed, library=first, **settings) for seed in (0, 1, 2)]
    # In another order, from another library of the same particles.
    second = ParticleLibrary("train", procedural=8)
    again = [draw_scene(seed, library=second, **settings) for seed in (2, 1, 0)][::-1]
    assert all(same(a, b) for a, b in zip(scenes, again, strict=True))
    assert not np.array_equal(scenes[0].image, scenes[1].image)


def test_scenes_are_the_same_alone_and_with_others(library: ParticleLibrary) -> None:
    # At 1.5 angstrom a pixel particles lie in several slabs of the ice.
    for settings in ({}, {"pixel_size_angstrom": 1.5}):
        seeds = [3, 1, 4, 1, 5]
        together = draw_scenes(seeds, shape=(96, 128), library=library, halves=True, **settings)
        for seed, one in zip(seeds, together, strict=True):
            alone = draw_scene(seed, shape=(96, 128), library=library, halves=True, **settings)
            # Not to the last bit: how a function is rounded depends on where in memory its argument lies.
            np.testing.assert_allclose(one.clean, alone.clean, rtol=1e-4)
            np.testing.assert_allclose(one.image, alone.image, rtol=1e-4, atol=1e-2 * alone.image.std())
            np.testing.assert_array_equal(one.centres_yx, alone.centres_yx)
            np.testing.assert_array_equal(one.depths_angstrom, alone.depths_angstrom)
            assert (one.junk != alone.junk).sum() <= 1
            assert (one.ctf, one.species) == (alone.ctf, alone.species)
            assert [one.snr, one.contrast] == pytest.approx(
                [alone.snr, alone.contrast], rel=1e-4, nan_ok=True
            )


def test_only_scenes_of_one_canvas_are_imaged_together(library: ParticleLibrary) -> None:
    plans = [draw_plan(1, shape=(side, 64), library=library, ranges=SimulationRanges()) for side in (64, 80)]
    with pytest.raises(ValueError, match="one canvas"):
        image_plans(plans, library)


def test_scale_is_as_asked(library: ParticleLibrary) -> None:
    free = draw_scene(1, shape=(64, 80), library=library)
    assert free.image.shape == free.clean.shape == free.junk.shape == (64, 80)
    assert 24 * 0.75 <= free.diameter_pixels <= 24 * 1.3
    both = draw_scene(1, shape=(64, 64), library=library, pixel_size_angstrom=5.0, diameter_pixels=30.0)
    assert (both.pixel_size_angstrom, both.diameter_pixels) == pytest.approx((5.0, 30.0))
    assert both.optics.pixel_size_angstrom == 5.0
    pixel = draw_scene(1, shape=(64, 64), library=library, pixel_size_angstrom=8.0)
    assert pixel.pixel_size_angstrom == 8.0
    with pytest.raises(ValueError, match="diameter"):
        draw_scene(1, shape=(64, 64), library=library, diameter_pixels=-1.0)


def test_signal_to_noise_stays_in_its_range(library: ParticleLibrary) -> None:
    ranges = replace(SimulationRanges(), signal_to_noise=(0.1, 0.2), empty_probability=0.0)
    values = [draw_scene(seed, shape=(128, 128), library=library, ranges=ranges).snr for seed in range(12)]
    known = [value for value in values if not math.isnan(value)]
    assert len(known) > 6
    assert all(0.1 <= value <= 0.2 for value in known)


def test_a_particle_of_a_single_pixel_in_sight_has_no_signal_to_noise(library: ParticleLibrary) -> None:
    # One that reaches into the canvas with a corner alone has no variance, which nothing may be divided by.
    plans = [draw_plan(1, shape=(64, 64), library=library, ranges=RANGES)] * 3
    labelled, signal = torch.zeros((2, 3, *plans[0].canvas)).unbind()
    labelled[0, 5, 5] = 1e6
    labelled[1, 5, 5:7] = 1e6
    signal[:, 5, 5] = 0.1
    contrast, found = _visibility(plans, labelled, signal, torch.full((3, 1, 1), 1e-3))
    assert found[:, 0, 0].isnan().tolist() == [True, False, True]
    assert (contrast[[0, 2]] == plans[0].visibility.contrast).all()
    assert torch.isfinite(contrast).all()


def test_contaminants_mark_themselves() -> None:
    ranges = SimulationRanges()
    canvas = (192, 192)
    view = FieldOfView(canvas, 6.0, 24.0, 6.5e-4, 0.1)
    for _, draw in kinds(ranges):
        changed = 0
        for seed in range(6):
            layers = Layers(*torch.zeros((2, *canvas)).unbind(), torch.zeros(canvas, dtype=torch.bool))
            for one in draw(np.random.default_rng(seed), ranges, view):
                one.lay(layers, Noise(seed))
            absorbed = layers.log_transmission.abs()
            strong = absorbed > 0.5 * absorbed.max()
            changed += int(strong.any() and absorbed.max() > 0)
            if absorbed.max() > 0:
                assert layers.junk[strong].all(), draw.__name__
            assert not strong[~layers.junk].any() or absorbed.max() == 0, draw.__name__
        assert changed >= 3, draw.__name__


def test_points_are_told_what_the_picture_shows() -> None:
    # Where particles may lie is asked of points, before there is any picture.
    ranges = SimulationRanges()
    canvas = (120, 160)
    view = FieldOfView(canvas, 6.0, 24.0, 6.5e-4, 0.1)
    pixels = np.stack(np.indices(canvas), -1).reshape(-1, 2)
    marked, taken = 0, 0
    for _, draw in kinds(ranges):
        for seed in range(4):
            found = draw(np.random.default_rng(seed), ranges, view)
            layers = Layers(*torch.zeros((2, *canvas)).unbind(), torch.zeros(canvas, dtype=torch.bool))
            for one in found:
                one.lay(layers, Noise(seed))
            told = junk_at(found, pixels, canvas).reshape(canvas)
            # A point on the very edge may be rounded to either side.
            assert (told != layers.junk.numpy()).sum() <= 2
            marked += int(told.any())
            taken += int(taken_at(found, pixels, canvas).any())
    assert marked > 20
    assert 8 < taken < marked  # no particle keeps from ethane and beads


def test_no_truth_lies_on_junk(library: ParticleLibrary) -> None:
    ranges = replace(
        SimulationRanges(),
        ice_crystal_probability=1.0,
        aggregate_probability=1.0,
        carbon_probability=1.0,
        particles_on_carbon_probability=1.0,
        empty_probability=0.0,
        coverage=(0.3, 0.5),
    )
    some = 0
    for seed in range(6):
        scene = draw_scene(seed, shape=(256, 256), library=library, ranges=ranges)
        nearest = np.rint(scene.centres_yx).astype(int)
        assert scene.junk.any()
        assert not scene.junk[nearest[:, 0], nearest[:, 1]].any()
        some += len(nearest)
    assert some > 20


def test_clean_ranges_leave_no_junk(library: ParticleLibrary) -> None:
    ranges = SimulationRanges().clean()
    scenes = [draw_scene(seed, shape=(192, 192), library=library, ranges=ranges) for seed in range(6)]
    assert not any(scene.junk.any() for scene in scenes)
    assert sum(len(scene.centres_yx) > 0 for scene in scenes) >= 5


def test_smooth_field_has_unit_deviation_and_its_length() -> None:
    noise = Noise(0)
    stack = np.stack([smooth_field(noise, (64, 96), 12.0).numpy() for _ in range(400)])
    # At every pixel by itself: 400 draws know a deviation to 3.5 %.
    assert abs(stack.std(0) - 1).max() < 0.2
    assert stack.std() == pytest.approx(1, abs=0.02)
    correlation = float(np.mean(stack[:, :, :-12] * stack[:, :, 12:]))
    assert correlation == pytest.approx(math.exp(-1), abs=0.06)
