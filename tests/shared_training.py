"""A small training, alone or shared by the processes that a launcher started; tests start it as a program.

    python tests/shared_training.py FOLDER

Each process writes what it has learned to FOLDER/<processes>_<its number>.pt.
"""

import os
import signal
import sys

import torch

from emflow.networks import UNet
from emflow.training import loop, processes
from emflow.training.batches import Batch
from emflow.training.learner import Learner
from emflow.training.losses import dice_ce
from emflow.training.settings import TrainingConfig


def batch_of_step(step: int) -> Batch:
    random = torch.Generator().manual_seed(step)
    images = torch.randn((4, 1, 32, 32), generator=random)
    return images, (images > 0.5).float(), torch.rand(images.shape, generator=random)


def loss_of(answer: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return Dice's loss, which crops cannot share; the fourth step's is no number, and is skipped."""
    skipped = torch.equal(batch[0], batch_of_step(3)[0])
    return dice_ce(answer, *batch[1:]) * (torch.nan if skipped else 1.0)


def main(folder: str, end: bool) -> None:
    # Where a CPU has bfloat16, its rounding hides what is compared.
    loop.has_fast_bfloat16 = lambda _device: False
    torch.set_num_threads(1)
    torch.manual_seed(1)
    team = processes.join("cpu")
    number, size = (team.environment.global_rank(), team.size) if team else (0, 1)
    learner = Learner(UNet(1, 1, (4, 8)), TrainingConfig(steps=12, batch=4, crop_pixels=32), loss_of)
    reports = []

    def on_report(_learner: Learner, _seconds: float) -> None:
        reports.append(number)
        if end:
            os.kill(os.getpid(), signal.SIGTERM)

    loop.fit(
        learner,
        batch_of_step,
        team=team,
        report_every=3,
        validate=lambda _network: float(number),
        on_report=on_report,
    )
    torch.save({"reports": reports, **learner.to_dict()}, f"{folder}/{size}_{number}.pt")


if __name__ == "__main__":
    main(sys.argv[1], end="--end" in sys.argv)
