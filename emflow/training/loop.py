"""The training loop that all models share: Lightning's, which says and writes nothing by itself here."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

from emflow.networks import UNet
from emflow.precision import has_fast_bfloat16
from emflow.training.batches import Batch
from emflow.training.callbacks import EndOnSignal, Reports, RunningAverage
from emflow.training.learner import Learner
from emflow.training.processes import Team


def fit(
    learner: Learner,
    batch_of_step: Callable[[int], Batch],
    *,
    device: str | torch.device = "cpu",
    team: Team | None = None,
    validate: Callable[[UNet], float] = lambda _network: math.nan,
    report_every: int = 50,
    on_report: Callable[[Learner, float], None] = lambda _learner, _seconds: None,
) -> None:
    """Train from wherever ``learner`` is until its steps are done, or no more is gained.

    Parameters
    ----------
    learner
        Changed in place; on the CPU and with its best average afterwards.
    batch_of_step
        Gives the whole batch of a step, in each of the processes that share it.
    device, team
        Where it runs; the processes that share the training, None for this one alone.
    validate
        Gives the loss of a network on what it does not learn from; the average is judged at each report.
    report_every, on_report
        After so many steps ``on_report`` is called, in the first process, with the learner and the seconds
        these steps took.

    Raises
    ------
    SettingError
        When the loss was not finite twenty steps in a row; steps before that are skipped.
    """
    if learner.step < learner.config.steps and not learner.gains_no_more:
        callbacks: list[Callback] = [RunningAverage(), Reports(validate, on_report), EndOnSignal()]
        with warnings.catch_warnings():
            # That there is a GPU or an srun which is not used: the user said so.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # A kernel of 1 x 1 has two ways to say that its channels are last.
            warnings.filterwarnings("ignore", ".*Grad strides do not match bucket view strides", UserWarning)
            # Of what Lightning takes from torch.
            for old in ("LeafSpec", "all_gather is deprecated"):
                warnings.filterwarnings("ignore", f".*{old}", FutureWarning)
            trainer = _trainer(learner, torch.device(device), team, callbacks)
            trainer.fit(learner, _Stretches(learner, batch_of_step, report_every))
        if team is not None:
            torch.distributed.destroy_process_group()
    if learner.best is not None:
        learner.average.load_state_dict(learner.best)
    learner.eval()


class _Stretches:
    """The batches up to the next report, each time that it is iterated: an epoch of Lightning's.

    Without a length, as the first stretch after an odd number of steps is a shorter one.
    """

    def __init__(self, learner: Learner, batch_of_step: Callable[[int], Batch], report_every: int) -> None:
        self.learner, self.batch_of_step, self.report_every = learner, batch_of_step, report_every

    def __iter__(self) -> Iterator[Batch]:
        first, last = self.learner.step, self.learner.config.steps
        return map(
            self.batch_of_step, range(first, min(last, (first // self.report_every + 1) * self.report_every))
        )


def _trainer(learner: Learner, device: torch.device, team: Team | None, callbacks: list[Callback]) -> Trainer:
    """Return a trainer for the steps that are left, which writes nothing and says nothing."""
    for library in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    on_gpu = device.type == "cuda"
    return Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=team.on_node if team else [device.index or 0] if on_gpu else 1,
        num_nodes=team.nodes if team else 1,
        strategy=DDPStrategy(process_group_backend="nccl" if on_gpu else "gloo") if team else "auto",
        # Named, as Lightning would take the environment of any job in SLURM for one of many processes.
        plugins=team.environment if team else LightningEnvironment(),
        # bfloat16, unlike float16, needs no scaling of the loss.
        precision="bf16-mixed" if has_fast_bfloat16(device) else "32-true",
        max_steps=learner.config.steps - learner.step,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
