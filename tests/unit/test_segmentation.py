"""Segmentation slice by slice: slabs and tiles fit together, and what is not labelled teaches nothing."""

import numpy as np
import pytest
import torch

from emflow.networks import UNet
from emflow.scoring_volumes import dice, surface_dice
from emflow.segmentation import CLIP_SIGMAS, SCORE, look_upright, mirrored, segment_slabs, standardise
from emflow.segmentation_batches import look_together
from emflow.tomogram_classes import CLASSES, NOT_LABELLED, Label
from emflow.training.segmenter import DENOISED_SHARE, SegmenterSamples, segmenter_batch, segmenter_loss
from emflow.training.tomograms import TrainingTomogram


def _network(slices: int = 3, classes: int = 3) -> UNet:
    torch.manual_seed(0)
    network = UNet(slices, classes, (4, 8)).eval()
    with torch.no_grad():
        network.head.weight.mul_(10)  # a fresh network's answer hardly differs between voxels
    return network


VOLUME = np.random.default_rng(0).normal(size=(40, 36, 76)).astype(np.float32)


def _in_slabs(
    slab_slices: int,
    *,
    upright: bool,
    volume: np.ndarray = VOLUME,
    looks: int = 1,
    as_tensor: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    network, shape = _network(), (40, 36, 76)
    sums = np.zeros((3, *shape), dtype=np.uint8) if upright else None
    if sums is not None:
        sums = torch.from_numpy(sums) if as_tensor else sums
        look_upright(network, volume.__getitem__, shape, sums, centre=0.1, spread=1.2, looks=looks)
    slabs = segment_slabs(
        network, volume.__getitem__, shape, slab_slices, centre=0.1, spread=1.2, upright=sums, looks=looks
    )
    _, scores, labels = zip(*slabs, strict=True)
    return np.concatenate(scores, axis=1), np.concatenate(labels)


@pytest.mark.parametrize("upright", [False, True])
def test_slabs_are_the_whole_cut_in_pieces(upright: bool) -> None:
    scores, labels = _in_slabs(40, upright=upright)
    assert scores.shape == (3, 40, 36, 76)
    assert labels.shape == (40, 36, 76)
    assert np.abs(scores.sum(axis=0, dtype=int) - SCORE).max() <= 3  # three rounded classes
    assert scores.std() > 3
    for pieces, whole in zip(_in_slabs(8, upright=upright), (scores, labels), strict=True):
        np.testing.assert_array_equal(pieces, whole)


def test_each_direction_counts_a_third_and_depth_stays_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that says of each voxel where it is: each slice must be given its own way up."""
    z, y, x = np.indices((40, 36, 76)).astype(np.float32)
    volume = np.where(x == 70, z, 0) + np.where(y == 30, z, 0)
    seen = []

    def look(_network: UNet, windows: np.ndarray, **_how: object) -> np.ndarray:
        seen.extend(windows)
        certain = np.zeros((len(windows), 3, *windows.shape[2:]), dtype=np.float32)
        certain[:, 1 if windows.shape[2] == 40 else 2] = 100
        return certain

    monkeypatch.setattr("emflow.segmentation.infer", look)
    network, sums = _network(), np.zeros((3, 40, 36, 76), dtype=np.uint8)
    look_upright(network, volume.__getitem__, volume.shape, sums, centre=0, spread=1)
    assert (sums[1] == 2 * 85).all()
    assert [slab.shape for slab in seen] == [(3, 40, 76)] * 36 + [(3, 40, 36)] * 76
    np.testing.assert_array_equal(seen[30][1][:, 5], np.minimum(np.arange(40), 8))
    np.testing.assert_array_equal(seen[36 + 70][1][:, 5], np.minimum(np.arange(40), 8))
    (_, scores, labels), *rest = segment_slabs(
        network, volume.__getitem__, volume.shape, 40, centre=0, spread=1, upright=sums
    )
    assert not rest
    assert (scores[1] == 170).all()
    assert (scores[2] == 85).all()
    assert (labels == 1).all()


def test_with_a_second_look_a_mirrored_tomogram_has_mirrored_classes() -> None:
    mirror = (slice(None), *[slice(None, None, -1)] * 3)
    for looks in (1, 2):
        scores, _ = _in_slabs(40, upright=True, looks=looks)
        other, _ = _in_slabs(40, upright=True, looks=looks, volume=np.ascontiguousarray(VOLUME[mirror[1:]]))
        worst = np.abs(other[mirror].astype(int) - scores).max()
        assert worst <= 1 if looks == 2 else worst > 10


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("looks", [1, 2])
def test_slices_together_say_what_they_say_alone(
    upright: bool, as_tensor: bool, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a GPU, taken on the CPU: scores may be rounded the other way, with a label beside them."""
    scores, labels = _in_slabs(8, upright=upright, looks=looks)
    monkeypatch.setattr("emflow.segmentation._on_gpu", lambda _device: True)
    together = _in_slabs(8, upright=upright, looks=looks, as_tensor=as_tensor)
    assert np.abs(together[0].astype(int) - scores).max() <= 1
    ranked = np.sort(scores.astype(int), axis=0)
    clear = ranked[-1] > ranked[-2] + 2
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(together[1][clear], labels[clear])


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("looks", [1, 2])
def test_how_many_slices_are_looked_at_together_changes_nothing(slices: int, looks: int) -> None:
    options = {"share": SCORE, "known": None, "looks": looks, "device": "cpu"}
    slab = VOLUME[:9, :30, :29]  # no whole strides
    all_at_once = look_together(_network(), slab, 0.1, 1.2, CLIP_SIGMAS, **options)
    few = look_together(_network(), slab, 0.1, 1.2, CLIP_SIGMAS, pixels=slices * 30 * 29, **options)
    assert all_at_once[0].shape == (3, 7, 30, 29)
    assert (all_at_once[0].int() - few[0].int()).abs().max() <= 1
    assert (all_at_once[1] == few[1]).float().mean() > 0.999


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


def test_upright_slices_are_whole_and_keep_what_is_up() -> None:
    z = np.arange(40, dtype=np.uint8)[:, None, None]
    labels = np.broadcast_to(z, (40, 64, 64)).copy()
    shapes = set()
    for seed in range(12):
        random = np.random.default_rng(seed)
        images, truth = segmenter_batch([(labels.astype(np.float16), labels)] * 2, 32, random, slices=3)
        assert images.shape == (2, 3, *truth.shape[1:])
        shapes.add(truth.shape[1:])
        if truth.shape[1] == 48:
            # Depth runs down or up the slice, never across it; beyond it are whole strides without a label.
            assert (truth == truth[:, :, :1]).all()
            for column in truth[:, :, 0]:
                known = column[column != NOT_LABELLED]
                assert sorted(known.tolist()) == list(range(40))
                assert (known[1:] != known[:-1]).all()
    assert shapes == {(48, 64), (32, 32)}
    for seed in range(6):
        pair = [(labels.astype(np.float16), labels)] * 2
        _, truth = segmenter_batch(pair, 32, np.random.default_rng(seed), slices=3, axes="z")
        assert truth.shape[1] == 32


def test_a_denoiser_shows_the_segmenter_what_it_makes_of_some_tomograms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = np.random.default_rng(0).normal(size=(16, 32, 32)).astype(np.float16)
    drawn = TrainingTomogram(half, half, half, np.zeros(half.shape, dtype=np.uint8))
    ramp = np.linspace(0, 1, half.size, dtype=np.float32).reshape(half.shape)
    monkeypatch.setattr("emflow.training.segmenter.denoised", lambda _network, _halves: ramp)
    samples = SegmenterSamples(lambda _seed: drawn, UNet(1, 1, (4,), dimensions=3))
    seen = [bool((np.diff(samples((1, n))[0].ravel()) >= 0).all()) for n in range(200)]
    assert np.mean(seen) == pytest.approx(DENOISED_SHARE, abs=0.1)
