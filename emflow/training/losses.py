"""The losses that a training may be told to use, each of logits and soft targets with a weight per pixel.

monai has most of them, but none that weighs pixels: a heatmap needs that (a background pixel counts a tenth
of a centre), and so does an image of which part is not known. With all weights 1 they equal monai's, which
the tests hold them to.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch.nn import functional

from emflow.config.training import LossName

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

# Lin et al., Focal loss for dense object detection (2017), eq. 4.
FOCAL_GAMMA = 2.0
# So that two empty images agree.
DICE_SMOOTHING = 1.0


def cross_entropy(logit: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy of logits with targets 0..1, averaged by weight; all of one shape."""
    loss = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return _average(loss, weight)


def dice(logit: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return one minus Dice's overlap of the whole batch, ``(2 sum p y + 1) / (sum p + sum y + 1)``."""
    probability = torch.sigmoid(logit)
    both = (weight * probability * target).sum()
    each = (weight * probability).sum() + (weight * target).sum()
    return 1 - (2 * both + DICE_SMOOTHING) / (each + DICE_SMOOTHING)


def dice_ce(logit: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return Dice's loss and the cross-entropy in equal parts."""
    return 0.5 * (dice(logit, target, weight) + cross_entropy(logit, target, weight))


def focal(logit: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy, of which what is nearly right counts little: times ``|p - y|^2``."""
    loss = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return _average((torch.sigmoid(logit) - target).abs() ** FOCAL_GAMMA * loss, weight)


def weighted_mse(logit: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the squared error of the probability, averaged by weight."""
    return _average((torch.sigmoid(logit) - target).square(), weight)


def _average(loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    # At least 1: a batch that hardly counts must not count as much as any other.
    return (weight * loss).sum() / weight.sum().clamp(min=1)


LOSSES: Mapping[LossName, Loss] = MappingProxyType(
    {
        "cross_entropy": cross_entropy,
        "dice": dice,
        "dice_ce": dice_ce,
        "focal": focal,
        "weighted_mse": weighted_mse,
    }
)
