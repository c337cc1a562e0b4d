"""What the training commands let a user set of the learning itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from emflow.training.settings import TrainingConfig

# Not the number of steps, so that a training that is given more of them can go on from its checkpoint.
_ALL_STEPS = 10**9


@dataclass(frozen=True)
class Learning:
    """How a network learns.

    Attributes
    ----------
    batch
        Crops of 256 x 256 pixels a step.
    learning_rate
        Highest rate of the schedule; a quarter of the default suits weights that --init-from brings.
    schedule
        one_cycle rises to the rate and falls to a hundredth of it; constant keeps it.
    average_decay
        Decay a step of the running average of the weights, which is what is kept.
    freeze
        encoder keeps the weights up to the coarsest level as --init-from brought them.
    frozen_steps
        For how many steps; all of them when not given.
    encoder_rate
        Share of the rate at which the encoder learns, once it does.
    patience
        Stop after so many reports (50 steps each) that did not lower the validation loss, and keep the best;
        0 never stops.
    """

    batch: int = 8
    learning_rate: float = 2e-3
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    average_decay: float = 0.998
    freeze: Literal["none", "encoder"] = "none"
    frozen_steps: int | None = None
    encoder_rate: float = 1.0
    patience: int = 0

    def config(self, *, steps: int, seed: int) -> "TrainingConfig":
        """Return the settings of the training loop."""
        from emflow.training.settings import TrainingConfig

        frozen = _ALL_STEPS if self.frozen_steps is None else self.frozen_steps
        return TrainingConfig(
            steps=steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            average_decay=self.average_decay,
            seed=seed,
            schedule=self.schedule,
            encoder_frozen_steps=frozen if self.freeze == "encoder" else 0,
            encoder_rate=self.encoder_rate,
            patience=self.patience,
        )
