"""The training loop that all models share: AdamW, an average of the weights, early stop, exact resuming.

Nothing in it hangs on how often it was interrupted: what a step learns from, and how fast, follows from the
seed and the step's number alone.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from emflow.errors import SettingError
from emflow.networks import UNet
from emflow.training import parallel

# So many steps in a row without a finite loss are no accident.
MOST_SKIPPED_STEPS = 20

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


@dataclass
class TrainingState:
    """All that resuming needs: the weights, their average, the optimiser, and the curve so far.

    ``curve`` has one row a reported stretch: step, mean loss since the last row, learning rate, and the
    validation loss of the average (nan without one). ``best`` is the average of the lowest validation loss,
    kept where training may stop early.
    """

    network: UNet
    average: UNet
    optimiser: torch.optim.Optimizer
    step: int
    curve: list[tuple[int, float, float, float]]
    best: dict[str, torch.Tensor] | None = None

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


Batch = tuple[torch.Tensor, ...]


def start(network: UNet, config: TrainingConfig) -> TrainingState:
    """Return the state before the first step."""
    # Convolutions of few channels run twice as fast on CPUs with the channels last.
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    encoder, rest = network.encoder_and_rest()
    optimiser = torch.optim.AdamW(
        [{"params": encoder}, {"params": rest}], lr=config.learning_rate, weight_decay=config.weight_decay
    )
    return TrainingState(network, copy.deepcopy(network).requires_grad_(False), optimiser, 0, [])


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 pays: on GPUs, and on CPUs that have instructions for it.

    Where they have to be emulated, a step takes ten times as long.
    """
    if device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step."""
    if config.schedule == "constant":
        return config.learning_rate
    rise = max(1, config.steps // 10)
    if step < rise:
        low, share = 0.04, 0.5 - 0.5 * math.cos(math.pi * step / rise)
    else:
        low, share = 0.01, 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, config.steps - rise))
    return config.learning_rate * (low + (1 - low) * share)


def encoder_share(step: int, config: TrainingConfig) -> float:
    """Return what share of the learning rate a step's encoder gets."""
    return 0.0 if step < config.encoder_frozen_steps else config.encoder_rate


def fit(
    state: TrainingState,
    config: TrainingConfig,
    batch_of_step: Callable[[int], Batch],
    loss_of: Callable[[torch.Tensor, Batch], torch.Tensor],
    *,
    device: str | torch.device = "cpu",
    validate: Callable[[UNet], float] = lambda _network: math.nan,
    report_every: int = 50,
    on_report: Callable[[TrainingState, float], None] = lambda _state, _seconds: None,
) -> None:
    """Train from wherever ``state`` is until ``config.steps`` steps are done, or no more is gained.

    Parameters
    ----------
    state
        Changed in place.
    batch_of_step
        Gives the tensors of a step's batch; the first one, (n, channels, [d,] h, w), goes into the network.
    loss_of
        Gives the loss of the network's answer to a batch.
    validate
        Gives the loss of a network on what it does not learn from; the average is judged at each report.
    report_every, on_report
        After so many steps ``on_report`` is called with the state and the seconds these steps took.

    Raises
    ------
    SettingError
        When the loss was not finite twenty steps in a row; steps before that are skipped.
    """
    device = torch.device(device)
    halves = has_fast_bfloat16(device)
    state.network.to(device).train()
    state.average.to(device)
    skipped = 0
    losses: list[float] = []
    started = time.monotonic()
    while state.step < config.steps and not _gains_no_more(state, config):
        rate = learning_rate(state.step, config)
        encoder, rest = state.optimiser.param_groups
        encoder["lr"], rest["lr"] = rate * encoder_share(state.step, config), rate
        batch = tuple(tensor.to(device) for tensor in batch_of_step(state.step))
        inputs = batch[0]
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        # bfloat16, unlike float16, needs no scaling of the loss.
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=halves):
            answer = parallel.answers(state.network, inputs)
        loss = loss_of(answer.float(), batch)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.add_gradients(state.network)
        norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.gradient_clip)
        if torch.isfinite(loss) and torch.isfinite(norm):
            skipped = 0
            state.optimiser.step()
            losses.append(float(loss.detach()))
            _update_average(state, config)
        else:
            skipped += 1
            if skipped >= MOST_SKIPPED_STEPS:
                raise SettingError(
                    f"training: the loss was not finite in {skipped} steps up to step {state.step}; "
                    "look at the input for NaN, or lower the learning rate"
                )
        state.step += 1
        if state.step % report_every == 0 or state.step == config.steps:
            mean = sum(losses) / len(losses) if losses else math.nan
            state.average.eval()
            _judge(state, config, mean, rate, parallel.agreed(validate(state.average)))
            losses = []
            on_report(state, time.monotonic() - started)
            started = time.monotonic()
    if state.best is not None:
        state.average.load_state_dict(state.best)
    state.network.eval()
    state.average.eval()


def _judge(state: TrainingState, config: TrainingConfig, mean: float, rate: float, loss: float) -> None:
    """Add a row to the curve, and keep the average if none was better."""
    earlier = [row[3] for row in state.curve]
    state.curve.append((state.step, mean, rate, loss))
    if config.patience and all(loss < other for other in earlier):
        state.best = {name: tensor.clone() for name, tensor in state.average.state_dict().items()}


def _gains_no_more(state: TrainingState, config: TrainingConfig) -> bool:
    losses = [row[3] if math.isfinite(row[3]) else math.inf for row in state.curve]
    return bool(config.patience and losses and len(losses) - 1 - int(np.argmin(losses)) >= config.patience)


@torch.no_grad()
def mean_loss(
    network: UNet, batches: Sequence[Batch], loss_of: Callable[[torch.Tensor, Batch], torch.Tensor]
) -> float:
    """Return the mean loss of a network's answers to batches; nan for none."""
    device = next(network.parameters()).device
    losses = []
    for batch in batches:
        moved = tuple(tensor.to(device) for tensor in batch)
        losses.append(float(loss_of(network(moved[0]), moved)))
    return float(np.mean(losses)) if losses else math.nan


@torch.no_grad()
def _update_average(state: TrainingState, config: TrainingConfig) -> None:
    # Early on the average forgets fast, or the first, random weights would linger.
    decay = min(config.average_decay, (1 + state.step) / (10 + state.step))
    for mean, weight in zip(state.average.parameters(), state.network.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
