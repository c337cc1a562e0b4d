"""A network that learns, as Lightning trains it: weights, optimiser, one step, and all that resuming needs.

Nothing in it hangs on how often it was interrupted: how fast a step learns follows from its number alone.
"""

import copy
import math
from typing import Any

import torch

from emflow.errors import SettingError
from emflow.networks import UNet
from emflow.training.batches import Batch, LossOf
from emflow.training.settings import TrainingConfig, encoder_share, rate_share

try:
    from lightning.pytorch import LightningModule
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
except ModuleNotFoundError:
    raise SettingError("training needs lightning: pip install 'emflow[train]'") from None

# So many steps in a row without a finite loss are no accident.
MOST_SKIPPED_STEPS = 20


class Learner(LightningModule):
    """A network and how far its training has come.

    Attributes
    ----------
    network, average
        What learns, and the running average of its weights, which is what is shipped.
    config, loss_of
        How it learns, and the loss of its answers to a batch.
    step
        Steps done.
    curve
        One row a reported stretch: step, mean loss since the last row, learning rate, and the validation loss
        of the average (nan without one).
    best
        The average of the lowest validation loss, kept where training may stop early.
    losses
        Of the steps since the last row.
    learned
        Whether the last step was one; with a loss that is not finite it is skipped.
    """

    def __init__(self, network: UNet, config: TrainingConfig, loss_of: LossOf) -> None:
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.config = config
        self.loss_of = loss_of
        encoder, rest = network.encoder_and_rest()
        # A schedule that sets in at a later step asks for the rate that it began with.
        self.optimiser = torch.optim.AdamW(
            [{"params": part, "initial_lr": config.learning_rate} for part in (encoder, rest)],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.step = 0
        self.curve: list[tuple[int, float, float, float]] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.losses: list[float] = []
        self.learned = False
        self._skipped = 0

    @property
    def gains_no_more(self) -> bool:
        """Whether so many reports as it has patience for did not lower the validation loss."""
        losses = [row[3] if math.isfinite(row[3]) else math.inf for row in self.curve]
        patience = self.config.patience
        return bool(patience and losses and len(losses) - 1 - losses.index(min(losses)) >= patience)

    def to_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "curve": [list(row) for row in self.curve],
            "best": self.best,
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take over what :meth:`to_dict` returned.

        Raises
        ------
        SettingError
            When the checkpoint is of another network.
        """
        try:
            self.network.load_state_dict(checkpoint["network"])
            self.average.load_state_dict(checkpoint["average"])
            self.optimiser.load_state_dict(checkpoint["optimiser"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise SettingError(
                "the checkpoint is of another network: start without --resume or name another --output"
            ) from error
        self.step = int(checkpoint["step"])
        self.curve = [
            (int(step), float(loss), float(rate), float(apart))
            for step, loss, rate, apart in checkpoint["curve"]
        ]
        self.best = checkpoint["best"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimiser, and its rates from the next step on."""

        def rest(step: int) -> float:
            return rate_share(step, self.config)

        def encoder(step: int) -> float:
            return rest(step) * encoder_share(step, self.config)

        schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, [encoder, rest], self.step - 1)
        return {"optimizer": self.optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch, _index: int) -> torch.Tensor:
        """Return the loss of a whole batch, of which this process's network answers its part.

        Losses such as Dice's cannot be taken apart by crops, so each process is given all answers. The
        gradient of its own part then is that of as many equal losses as there are processes, and the mean of
        the processes' gradients is what one process has that answers all.

        Raises
        ------
        SettingError
            If the batch cannot be shared out evenly.
        """
        number, processes = self.trainer.global_rank, self.trainer.world_size
        inputs = batch[0]
        if len(inputs) % processes:
            raise SettingError(
                f"training: a batch of {len(inputs)} cannot be shared by {processes} processes evenly"
            )
        answer = self.network(inputs.chunk(processes)[number]).float()
        if processes > 1:
            answer = self.trainer.strategy.all_gather(answer, sync_grads=True).flatten(0, 1)
        # Only the network may round to bfloat16.
        with torch.autocast(self.device.type, enabled=False):
            loss = self.loss_of(answer, batch)
        self.learned = bool(torch.isfinite(loss))
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,  # noqa: ARG002
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Bound the norm of all gradients; where it is not finite, take them away: nothing is learned."""
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.learned = self.learned and bool(torch.isfinite(norm))
        if not self.learned:
            optimizer.zero_grad(set_to_none=True)

    def on_train_batch_end(self, outputs: Any, _batch: Batch, _index: int) -> None:
        """Count the step.

        Raises
        ------
        SettingError
            When the loss was not finite twenty steps in a row.
        """
        self._skipped = 0 if self.learned else self._skipped + 1
        if self.learned:
            self.losses.append(float(outputs["loss"]))
        elif self._skipped >= MOST_SKIPPED_STEPS:
            raise SettingError(
                f"training: the loss was not finite in {self._skipped} steps up to step {self.step}; "
                "look at the input for NaN, or lower the learning rate"
            )
        self.step += 1
