"""What happens besides between two steps of a training: the weights' average, and a report now and then."""

import math
import signal
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from emflow.networks import UNet
from emflow.training.learner import Learner
from emflow.training.settings import learning_rate


class RunningAverage(Callback):
    """Keeps the average of the weights.

    Lightning's own takes the first step's weights for it and decays alike at each; here it decays faster
    early on, or the first, random weights would linger, and by the step's number, so that resuming is exact.
    """

    @torch.no_grad()
    def on_train_batch_end(self, _trainer: Trainer, learner: Learner, *_: Any) -> None:  # type: ignore[override]
        """Move the average towards the weights, if they have learned."""
        if not learner.learned:
            return
        decay = min(learner.config.average_decay, (1 + learner.step) / (10 + learner.step))
        for mean, weight in zip(learner.average.parameters(), learner.network.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)


class Reports(Callback):
    """Judges the average at the end of each epoch, which is a reported stretch of steps, and may stop.

    The first process judges for all, and reports.
    """

    def __init__(
        self, validate: Callable[[UNet], float], on_report: Callable[[Learner, float], None]
    ) -> None:
        self.validate, self.on_report = validate, on_report
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, learner: Learner) -> None:  # type: ignore[override]
        """Add a row to the curve, and keep the average if none was better."""
        losses, learner.losses = learner.losses, []
        loss = self.validate(learner.average.eval()) if trainer.is_global_zero else math.nan
        loss = trainer.strategy.broadcast(loss)
        earlier = [row[3] for row in learner.curve]
        mean = sum(losses) / len(losses) if losses else math.nan
        learner.curve.append((learner.step, mean, learning_rate(learner.step - 1, learner.config), loss))
        if learner.config.patience and all(loss < other for other in earlier):
            learner.best = {name: tensor.clone() for name, tensor in learner.average.state_dict().items()}
        if trainer.is_global_zero:
            self.on_report(learner, time.monotonic() - self._started)
        self._started = time.monotonic()
        trainer.should_stop = learner.gains_no_more


class EndOnSignal(Callback):
    """Lets SIGTERM end the process at once, as it does outside of Lightning.

    Lightning would finish the step first, for which SLURM or snakemake may not wait, and then end as if all
    had gone well.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, *_: Any) -> None:
        """Put back the handler that was there before."""
        signal.signal(signal.SIGTERM, self._handler)
