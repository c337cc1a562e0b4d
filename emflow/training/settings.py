"""How a network is trained, and how fast at which step: by the step's number alone."""

import math
from dataclasses import dataclass
from typing import Literal

from emflow.errors import SettingError

Schedule = Literal["one_cycle", "constant"]


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Attributes
    ----------
    steps
        Steps of the optimiser.
    batch
        Crops a step.
    crop_pixels
        Side of a crop; a multiple of the network's stride.
    learning_rate
        Highest rate of the schedule.
    schedule
        ``one_cycle`` rises to the rate over the first tenth of the steps and falls to a hundredth of it, by
        half cosines; ``constant`` keeps it.
    weight_decay, gradient_clip
        Of AdamW; of the norm of all gradients.
    average_decay
        Decay a step of the running average of the weights, which is what is shipped.
    encoder_frozen_steps, encoder_rate
        For so many steps the encoder's weights stay as they are, and then learn at this share of the rate.
    patience
        Stop after so many reports in a row that did not lower the validation loss, and keep the average of
        the lowest; 0 never stops.
    seed
        Of everything random.
    """

    steps: int = 4000
    batch: int = 8
    crop_pixels: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 1.0
    average_decay: float = 0.998
    seed: int = 17
    schedule: Schedule = "one_cycle"
    encoder_frozen_steps: int = 0
    encoder_rate: float = 1.0
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop_pixels", "learning_rate"):
            if getattr(self, name) <= 0:
                raise SettingError(f"training: {name} must be positive, not {getattr(self, name)}")
        for name in ("encoder_frozen_steps", "encoder_rate", "patience"):
            if getattr(self, name) < 0:
                raise SettingError(f"training: {name} must not be negative, as {getattr(self, name)} is")
        if not 0 <= self.average_decay < 1:
            raise SettingError(f"training: average_decay must be in [0, 1), not {self.average_decay}")


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step."""
    return config.learning_rate * rate_share(step, config)


def rate_share(step: int, config: TrainingConfig) -> float:
    """Return what share of the highest learning rate a step has."""
    if config.schedule == "constant":
        return 1.0
    rise = max(1, config.steps // 10)
    if step < rise:
        low, share = 0.04, 0.5 - 0.5 * math.cos(math.pi * step / rise)
    else:
        low, share = 0.01, 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, config.steps - rise))
    return low + (1 - low) * share


def encoder_share(step: int, config: TrainingConfig) -> float:
    """Return what share of the learning rate a step's encoder gets."""
    return 0.0 if step < config.encoder_frozen_steps else config.encoder_rate
