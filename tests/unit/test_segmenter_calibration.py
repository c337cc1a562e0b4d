"""A class that a network makes too thick is held back by as much as it takes, and no more."""

import numpy as np
import torch

from emflow.networks import UNet
from emflow.training.segmenter_calibration import (
    Judged,
    add_offsets,
    calibrate,
    class_offsets,
    judged,
    mean_dice,
)


def _judged(offset: float, seed: int) -> Judged:
    """Three classes told apart by noisy evidence, of which the second is favoured by an offset."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, size=20_000, p=[0.8, 0.1, 0.1]).astype(np.uint8)
    evidence = random.normal(size=(1, 3, len(labels))).astype(np.float32)
    evidence += np.log([0.8, 0.1, 0.1])[None, :, None]
    evidence[0, labels, np.arange(len(labels))] += 3
    evidence[0, 1] += offset
    return Judged(evidence.astype(np.float32), labels)


def test_what_is_favoured_is_held_back() -> None:
    fair, favoured = ([_judged(offset, seed) for seed in range(2)] for offset in (0.0, 1.5))
    found = class_offsets(favoured) - class_offsets(fair)
    assert abs(found[1] + 1.5) <= 0.5
    assert found[0] == 0
    assert mean_dice(favoured, class_offsets(favoured)) > mean_dice(favoured, np.zeros(3)) + 0.02


def test_offsets_are_the_network_s_own_afterwards() -> None:
    torch.manual_seed(0)
    network = UNet(1, 3, (4, 8)).eval()
    image = torch.randn((1, 1, 16, 16))
    before = network(image)
    add_offsets(network, np.array([0.0, -1.5, 0.25]))
    expected = torch.tensor([0.0, -1.5, 0.25]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(network(image) - before, expected.expand_as(before))


def test_a_tomogram_is_looked_at_along_three_axes() -> None:
    torch.manual_seed(0)
    network = UNet(1, 3, (4, 8)).eval()
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (16, 20, 24)).astype(np.uint8)
    labels[:8] = 255  # nobody knows
    volume = random.normal(size=labels.shape).astype(np.float32)
    seen = judged(network, volume, labels, random)
    assert seen.logarithms.shape == (3, 3, 8 * 20 * 24)
    assert set(np.unique(seen.labels)) == {0, 1, 2}
    bias = network.head.bias.detach().clone()
    offsets = calibrate(network, [(volume, labels)], seed=0)
    assert torch.allclose(network.head.bias - bias, torch.tensor(offsets.repeat(4), dtype=torch.float32))
