"""What a step learns from, and the loss of what a network makes of it."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from emflow.networks import UNet

# The first tensor, (n, channels, [d,] h, w), goes into the network; the others are for the loss.
Batch = tuple[torch.Tensor, ...]
# Of the network's answer, (n, out_channels, [d,] h, w), to a batch.
LossOf = Callable[[torch.Tensor, Batch], torch.Tensor]


@torch.no_grad()
def mean_loss(network: UNet, batches: Sequence[Batch], loss_of: LossOf) -> float:
    """Return the mean loss of a network's answers to batches; nan for none."""
    device = next(network.parameters()).device
    losses = []
    for batch in batches:
        moved = tuple(tensor.to(device) for tensor in batch)
        losses.append(float(loss_of(network(moved[0]), moved)))
    return float(np.mean(losses)) if losses else math.nan
