"""Segmentation slice by slice: slabs and tiles fit together, and what is not labelled teaches nothing."""

import numpy as np
import pytest
import torch

from emflow.networks import UNet
from emflow.scoring_volumes import dice, surface_dice
from emflow.segmentation import mirrored, segment_slabs, standardise
from emflow.tomogram_classes import CLASSES, NOT_LABELLED, Label
from emflow.training.segmenter import SegmenterSamples, segmenter_batch, segmenter_loss
from emflow.training.tomograms import TrainingTomogram


def _network(slices: int = 3, classes: int = 3) -> UNet:
    torch.manual_seed(0)
    network = UNet(slices, classes, (4, 8)).eval()
    with torch.no_grad():
        network.head.weight.mul_(10)  # a fresh network's answer hardly differs between voxels
    return network


@pytest.mark.parametrize("axes", ["z", "zyx"])
def test_slabs_are_the_whole_cut_in_pieces(axes: str) -> None:
    volume = np.random.default_rng(0).normal(size=(40, 36, 44)).astype(np.float32)

    def segmented(slab_slices: int) -> np.ndarray:
        slabs = segment_slabs(
            _network(),
            lambda low, high: volume[low:high],
            (40, 36, 44),
            slab_slices,
            centre=0.1,
            spread=1.2,
            axes=axes,
        )
        return np.concatenate([slab for _, slab in slabs], axis=1)

    whole = segmented(40)
    assert whole.shape == (3, 40, 36, 44)
    np.testing.assert_allclose(whole.sum(axis=0), 1, atol=1e-5)
    assert whole.std() > 0.01
    np.testing.assert_allclose(segmented(8), whole, atol=2e-5)


def test_slices_beyond_the_ends_are_mirrored() -> None:
    np.testing.assert_array_equal(mirrored(np.arange(-3, 7), 4), [3, 2, 1, 0, 1, 2, 3, 2, 1, 0])
    np.testing.assert_array_equal(mirrored(np.arange(-2, 3), 1), 0)


def test_gold_does_not_reach_the_network_unclipped() -> None:
    assert standardise(np.array([[[1000.0, 3.0]]]), 1.0, 2.0).tolist() == [[[8.0, 1.0]]]


def test_what_is_not_labelled_has_no_gradient() -> None:
    labels = torch.randint(0, len(Label), (2, 16, 16))
    labels[:, 4:9] = NOT_LABELLED
    logits = torch.randn((2, len(Label), 16, 16), requires_grad=True)
    loss = segmenter_loss(logits, (torch.zeros(0), labels))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, :, 4:9].abs().max() == 0
    assert logits.grad[:, :, :4].abs().min(dim=1).values.max() > 0


def test_a_crop_without_a_label_costs_nothing() -> None:
    labels = torch.full((1, 8, 8), NOT_LABELLED)
    logits = torch.randn((1, len(Label), 8, 8), requires_grad=True)
    assert float(segmenter_loss(logits, (torch.zeros(0), labels)).detach()) == 0


def test_the_right_answer_costs_less_than_any_other() -> None:
    labels = torch.randint(0, len(Label), (2, 16, 16))
    right = 20 * torch.nn.functional.one_hot(labels, len(Label)).movedim(-1, 1).float()
    good = float(segmenter_loss(right, (torch.zeros(0), labels)))
    assert good < 0.01
    assert float(segmenter_loss(right.roll(1, dims=1), (torch.zeros(0), labels))) > 1


def test_crops_hold_the_slices_around_the_one_that_is_labelled() -> None:
    depth = 12
    volume = np.broadcast_to(np.arange(depth, dtype=np.float16)[:, None, None], (depth, 40, 40))
    labels = np.broadcast_to(np.arange(depth, dtype=np.uint8)[:, None, None] % 7, (depth, 40, 40))
    images, truth = segmenter_batch([(volume, labels)] * 6, 16, np.random.default_rng(0), slices=3, axes="z")
    assert images.shape == (6, 3, 16, 16)
    assert truth.shape == (6, 16, 16)
    for image, plane in zip(images, truth, strict=True):
        first, middle, last = image[:, 0, 0].tolist()
        assert abs(last - first) == pytest.approx(2 * abs(middle - first), abs=1e-3)
        assert len(plane.unique()) == 1


def test_scores_of_known_overlaps() -> None:
    true = np.zeros((12, 12, 12), dtype=bool)
    true[3:9, 3:9, 3:9] = True
    known = np.ones_like(true)
    assert dice(true, true, known) == 1
    assert surface_dice(true, true, known) == 1
    shifted = np.roll(true, 1, axis=2)
    assert dice(shifted, true, known) == pytest.approx(5 / 6)
    assert surface_dice(shifted, true, known) == 1  # within one voxel
    assert surface_dice(np.roll(true, 3, axis=2), true, known) < 0.8
    assert surface_dice(np.zeros_like(true), true, known) == 0
    known[:, :, 6:] = False
    assert dice(np.where(known, true, True), true, known) == 1


def test_every_class_has_a_name_and_a_colour_of_its_own() -> None:
    assert [each.value for each in CLASSES] == list(range(len(Label)))
    assert len({each.color for each in CLASSES}) == len(CLASSES)


def test_upright_crops_are_as_wide_as_the_tomogram_is_deep_and_keep_what_is_up() -> None:
    z = np.arange(40, dtype=np.uint8)[:, None, None]
    labels = np.broadcast_to(z, (40, 64, 64)).copy()
    sides = set()
    for seed in range(12):
        random = np.random.default_rng(seed)
        images, truth = segmenter_batch([(labels.astype(np.float16), labels)] * 2, 48, random, slices=3)
        sides.add(truth.shape[1])
        if truth.shape[1] == 32:
            # Depth runs down or up the crop, never across it.
            assert (truth == truth[:, :, :1]).all()
            assert (truth[:, 1:, 0] != truth[:, :-1, 0]).all()
        assert images.shape == (2, 3, *truth.shape[1:])
    assert sides == {32, 48}
    for seed in range(6):
        pair = [(labels.astype(np.float16), labels)] * 2
        _, truth = segmenter_batch(pair, 48, np.random.default_rng(seed), slices=3, axes="z")
        assert truth.shape[1] == 48


def test_a_denoiser_shows_the_segmenter_what_it_makes_of_some_tomograms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = np.random.default_rng(0).normal(size=(16, 32, 32)).astype(np.float16)
    drawn = TrainingTomogram(half, half, half, np.zeros(half.shape, dtype=np.uint8))
    ramp = np.linspace(0, 1, half.size, dtype=np.float32).reshape(half.shape)
    monkeypatch.setattr("emflow.training.segmenter.denoised", lambda _network, _halves: ramp)
    samples = SegmenterSamples(lambda _seed: drawn, UNet(1, 1, (4,), dimensions=3))
    seen = [bool((np.diff(samples((1, n))[0].ravel()) >= 0).all()) for n in range(200)]
    assert 60 <= sum(seen) <= 100
