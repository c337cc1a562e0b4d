"""Losses against values by hand, and against monai's where monai has the same."""

import math
import warnings

import pytest
import torch

from emflow.cli.train_picker import LossName as CommandLossName
from emflow.training.losses import LOSSES, LossName

ONE = torch.ones(1, 2)


def logit(*probabilities: float) -> torch.Tensor:
    return torch.logit(torch.tensor([probabilities]))


def value(name: str, answer: torch.Tensor, target: list[float], weight: torch.Tensor = ONE) -> float:
    return float(LOSSES[name](answer, torch.tensor([target], dtype=torch.float32), weight))


def test_by_hand():
    # A pixel of a particle answered 0.8, and one of background answered 0.4.
    answer = logit(0.8, 0.4)
    entropies = (-math.log(0.8), -math.log(0.6))
    assert value("cross_entropy", answer, [1, 0]) == pytest.approx(sum(entropies) / 2)
    overlap = (2 * 0.8 + 1) / (0.8 + 0.4 + 1 + 1)
    assert value("dice", answer, [1, 0]) == pytest.approx(1 - overlap)
    assert value("dice_ce", answer, [1, 0]) == pytest.approx((1 - overlap + sum(entropies) / 2) / 2)
    focal = 0.2**2 * entropies[0] + 0.4**2 * entropies[1]
    assert value("focal", answer, [1, 0]) == pytest.approx(focal / 2)
    assert value("weighted_mse", answer, [1, 0]) == pytest.approx((0.2**2 + 0.4**2) / 2)


def test_weights_by_hand():
    answer, weight = logit(0.8, 0.4), torch.tensor([[3.0, 1.0]])
    assert value("weighted_mse", answer, [1, 0], weight) == pytest.approx((3 * 0.04 + 0.16) / 4)
    assert value("cross_entropy", answer, [1, 0], weight) == pytest.approx(
        (-3 * math.log(0.8) - math.log(0.6)) / 4
    )
    overlap = (2 * 3 * 0.8 + 1) / (3 * 0.8 + 0.4 + 3 + 1)
    assert value("dice", answer, [1, 0], weight) == pytest.approx(1 - overlap)
    # Weights of 0 leave nothing; ones below 1 in all are no average, or a batch of them would count full.
    assert value("weighted_mse", answer, [1, 0], 0 * weight) == 0.0
    assert value("weighted_mse", answer, [1, 0], 0.1 * weight) == pytest.approx((0.3 * 0.04 + 0.1 * 0.16) / 1)


@pytest.mark.parametrize("name", LOSSES)
def test_the_right_answer_costs_nothing_and_its_gradient_is_finite(name):
    answer = torch.tensor([[40.0, -40.0]], requires_grad=True)
    loss = LOSSES[name](answer, torch.tensor([[1.0, 0.0]]), ONE)
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    loss.backward()
    assert torch.isfinite(answer.grad).all()


def test_monai_says_the_same():
    with warnings.catch_warnings():
        # Of libraries that monai imports, not ours.
        warnings.simplefilter("ignore")
        from monai.losses import DiceLoss, FocalLoss
    generator = torch.Generator().manual_seed(1)
    answer = torch.randn(2, 1, 8, 9, generator=generator) * 3
    target = (torch.rand(2, 1, 8, 9, generator=generator) > 0.6).float()
    weight = torch.ones_like(target)
    dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    assert float(LOSSES["dice"](answer, target, weight)) == pytest.approx(float(dice(answer, target)))
    focal = FocalLoss(gamma=2.0)
    assert float(LOSSES["focal"](answer, target, weight)) == pytest.approx(float(focal(answer, target)))


def test_the_command_offers_all_of_them():
    assert CommandLossName == LossName
    assert set(LossName.__args__) == set(LOSSES)
