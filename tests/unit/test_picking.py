from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from emflow.errors import SettingError
from emflow.fourier import fourier_resize
from emflow.io.model import load_model, shipped_model
from emflow.model_card import Calibration, ModelCard
from emflow.networks import UNet, build
from emflow.picking import (
    figure_of_merit,
    find_peaks,
    logit_of_figure_of_merit,
    pick_micrograph,
    working_pixel_size,
)
from emflow.scoring import average_precision, best_f1, match
from emflow.simulation import ParticleLibrary, SimulationRanges
from emflow.training.picker import best_log, held_apart_scenes, score_network

CARD = ModelCard(
    task="pick",
    architecture={"name": "UNet", "in_channels": 1, "out_channels": 2, "channels": [4, 6]},
    pixels_per_diameter=24.0,
    calibration=Calibration(1.0, 0.0),
    threshold=0.5,
)


class Matched(nn.Module):
    """In a picker's place: heat is the blurred, inverted image; junk is where pixels are at the clip."""

    stride = 8
    halo = 40

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axis = torch.arange(-16.0, 17.0)
        kernel = torch.exp(-0.5 * (axis / 6) ** 2)
        kernel = kernel[:, None] * kernel[None, :]
        heat = -nn.functional.conv2d(x, (kernel / kernel.sum())[None, None], padding=16)
        return torch.cat([4 * heat - 2, 20 * (x - 5.5)], dim=1)


def micrograph(shape: tuple[int, int], centres: np.ndarray, diameter: float) -> np.ndarray:
    """Dark, smooth balls in weak noise."""
    image = np.random.default_rng(5).normal(0, 0.3, shape).astype(np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for cy, cx in centres:
        square = ((y - cy) ** 2 + (x - cx) ** 2) / (diameter / 2) ** 2
        image -= 3 * np.sqrt(np.clip(1 - square, 0, None))
    return image


def pick(image: np.ndarray, unbinned: tuple[int, int], **changes):
    settings = {"image_pixel_size_angstrom": 4.0, "diameter_angstrom": 96.0, "floor": 0.5, **changes}
    return pick_micrograph(
        image, unbinned_shape=unbinned, network=changes.pop("network", Matched()), card=CARD, **settings
    )


CENTRES = np.array([(60.0, 70.0), (60.0, 200.0), (150.25, 90.5), (170.0, 300.0), (100.0, 350.75)])


def test_picks_are_unbinned_pixels_within_a_tenth_of_the_stored_one():
    # Stored at a third of the height and half of the width: an oblong pixel shows a swapped axis.
    image = micrograph((240, 400), CENTRES, 24)
    picks = pick(image, (720, 800))
    assert len(picks) == len(CENTRES)
    found = match(np.column_stack([picks.y / 3, picks.x / 2]), CENTRES, 0.35)
    assert sorted(found) == list(range(len(CENTRES)))


def test_the_scale_follows_the_diameter_not_the_pixel_size():
    # The same particles at half the pixel size: twice as many pixels, the same places in the micrograph.
    fine = micrograph((480, 800), CENTRES * 2, 48)
    coarse = fourier_resize(fine, (240, 400))
    a = pick(fine, (960, 1600), image_pixel_size_angstrom=2.0)
    b = pick(coarse, (960, 1600), image_pixel_size_angstrom=4.0)
    np.testing.assert_allclose(a.y, b.y, atol=0.4)
    np.testing.assert_allclose(a.x, b.x, atol=0.4)


def test_picks_on_junk_and_at_the_edge_are_left_out():
    inside = [(100.0, 100.0), (100.0, 200.0)]
    image = micrograph((240, 400), np.array([*inside, (8.0, 300.0), (150.0, 395.0)]), 24)
    assert len(pick(image, (240, 400))) == 2
    image[98:103, 198:203] = 40.0
    picks = pick(image, (240, 400))
    assert len(picks) == 1
    assert abs(picks.x[0] - 100) < 1


def test_the_better_of_two_close_candidates_stays():
    image = micrograph((240, 400), np.array([(100.0, 100.0), (100.0, 126.0)]), 24)
    image[90:112, 90:108] -= 0.6
    assert len(pick(image, (240, 400), minimum_distance_diameters=0.9)) == 2
    (x,) = pick(image, (240, 400), minimum_distance_diameters=1.4).x
    assert abs(x - 100) < 2


def test_order_is_by_merit_and_the_floor_holds():
    image = micrograph((240, 400), CENTRES, 24)
    picks = pick(image, (240, 400), floor=0.01)
    assert (np.diff(picks.figure_of_merit) <= 0).all()
    few = pick(image, (240, 400), floor=float(picks.figure_of_merit[2:4].mean()))
    assert few.x.tolist() == picks.x[:3].tolist()


def test_a_blank_micrograph_has_no_picks_and_no_warning():
    assert len(pick(np.zeros((240, 400), dtype=np.float32), (240, 400))) == 0


@pytest.mark.parametrize(
    ("pixel_size", "diameter", "expected"),
    [(3.0, 150.0, 6.25), (3.0, 72.0, 3.0), (3.0, 48.0, 2.0), (3.0, 24.0, 1.5), (3.0, 12.0, 1.5)],
)
def test_working_pixel_size(pixel_size, diameter, expected):
    assert working_pixel_size(pixel_size, diameter, 24.0) == expected


@pytest.mark.parametrize(("pixel_size", "diameter"), [(3.0, 11.0), (0.0, 100.0), (1.0, -5.0), (1.0, np.nan)])
def test_an_absurd_diameter_is_one_line(pixel_size, diameter):
    with pytest.raises(SettingError) as caught:
        working_pixel_size(pixel_size, diameter, 24.0)
    assert "\n" not in str(caught.value)


def test_peaks_are_placed_between_pixels():
    y, x = np.mgrid[:60, :80].astype(np.float32)
    centres = np.array([(20.3, 30.0), (40.0, 55.6)])
    heat = np.full((60, 80), -9.0, dtype=np.float32)
    for cy, cx in centres:
        heat = np.maximum(heat, 3 - ((y - cy) ** 2 + (x - cx) ** 2) / 20)
    peaks = find_peaks(heat, shoulder_pixels=4, minimum_distance_pixels=8, floor=0.0)
    np.testing.assert_allclose(np.column_stack([peaks.y, peaks.x]), centres, atol=1e-4)


def test_a_plateau_is_one_peak():
    heat = np.full((40, 40), -5.0, dtype=np.float32)
    heat[10:14, 10:14] = 2.0
    assert len(find_peaks(heat, shoulder_pixels=3, minimum_distance_pixels=6, floor=0.0).y) == 1


def test_suppression_goes_from_the_best_down():
    # In a row 5 apart, 2 > 3 > 1: the middle one falls to the best, so the last one stays.
    heat = np.full((11, 31), -5.0, dtype=np.float32)
    heat[5, [5, 10, 15]] = [3.0, 2.0, 1.0]
    peaks = find_peaks(heat, shoulder_pixels=1, minimum_distance_pixels=6, floor=0.0)
    assert peaks.x.round().tolist() == [5.0, 15.0]
    assert peaks.logit.tolist() == [3.0, 1.0]


def test_calibration_and_its_inverse():
    calibration = Calibration(1.7, -0.4)
    merit = figure_of_merit(np.array([-1.0, 0.0, 2.0]), calibration)
    np.testing.assert_allclose(merit, expit([-2.1, -0.4, 3.0]))
    for logit, value in zip((-1.0, 0.0, 2.0), merit, strict=True):
        assert logit_of_figure_of_merit(value, calibration) == pytest.approx(logit)
    assert logit_of_figure_of_merit(0.0, calibration) == -np.inf


@pytest.fixture(scope="module")
def scenes():
    """Shapes and seeds that neither training, calibration nor the card's scores used."""
    library = ParticleLibrary("held_apart", procedural=30, first=500)
    ranges = replace(SimulationRanges(), empty_probability=0.0)
    return held_apart_scenes(library, ranges, count=16, seed=99, side=384)


@pytest.fixture(scope="module")
def shipped() -> tuple[UNet, ModelCard]:
    return load_model(shipped_model("picker"), "pick")


def test_the_shipped_picker_beats_the_laplacian_at_its_best_width(shipped, scenes):
    ours = score_network(*shipped, scenes)
    _, baseline = best_log(scenes)
    assert ours.truths > 300
    assert average_precision(ours) > average_precision(baseline) + 0.15
    assert best_f1(ours)[0] > best_f1(baseline)[0] + 0.1


def test_random_weights_collapse(shipped, scenes):
    network, card = shipped
    torch.manual_seed(0)
    random = score_network(build(card.architecture).eval(), card, scenes)
    assert average_precision(random) < 0.25 * average_precision(score_network(network, card, scenes))


def test_the_same_micrograph_gives_the_same_picks(shipped, scenes):
    network, card = shipped
    scene = scenes[0]
    first, second = (
        pick_micrograph(
            scene.image,
            image_pixel_size_angstrom=scene.pixel_size_angstrom,
            unbinned_shape=scene.image.shape,
            diameter_angstrom=24 * scene.pixel_size_angstrom,
            network=network,
            card=card,
        )
        for _ in range(2)
    )
    for name in ("x", "y", "figure_of_merit"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_the_gain_of_the_camera_does_not_matter(shipped, scenes):
    network, card = shipped
    scene = scenes[1]
    results = [
        pick_micrograph(
            image.astype(np.float32),
            image_pixel_size_angstrom=scene.pixel_size_angstrom,
            unbinned_shape=scene.image.shape,
            diameter_angstrom=24 * scene.pixel_size_angstrom,
            network=network,
            card=card,
            floor=0.1,
        )
        for image in (scene.image, scene.image * 7 - 300)
    ]
    assert len(results[0]) == len(results[1]) > 0
    np.testing.assert_allclose(results[0].x, results[1].x, atol=0.1)
    np.testing.assert_allclose(results[0].figure_of_merit, results[1].figure_of_merit, atol=1e-3)
