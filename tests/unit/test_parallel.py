"""A training that processes share gives what one process gives."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

TRAIN = """
import sys
import torch
from emflow.networks import UNet
from emflow.training import loop, parallel
from emflow.training.loop import TrainingConfig, fit, start
from emflow.training.losses import dice_ce

# Where a CPU has bfloat16, its rounding hides what is compared here.
loop.has_fast_bfloat16 = lambda device: False
parallel.join("cpu")
torch.set_num_threads(1)
torch.manual_seed(1)

def batch_of_step(step):
    random = torch.Generator().manual_seed(step)
    images = torch.randn((4, 1, 32, 32), generator=random)
    return images, (images > 0.5).float(), torch.rand(images.shape, generator=random)

config = TrainingConfig(steps=12, batch=4, crop_pixels=32)
state = start(UNet(1, 1, (4, 8)), config)
fit(state, config, batch_of_step, lambda answer, batch: dice_ce(answer, *batch[1:]), report_every=3,
    validate=lambda _: float(parallel.rank_and_size()[0]))
rank, size = parallel.rank_and_size()
torch.save({"size": size, **state.to_dict()}, f"{sys.argv[1]}/{size}_{rank}.pt")
"""


def train(folder: Path, *launcher: str) -> None:
    script = folder / "train.py"
    script.write_text(TRAIN)
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def torchrun(processes: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")


def test_two_processes_learn_what_one_learns(tmp_path):
    """Up to the order in which float32 is summed; Dice's loss cannot be taken apart by crops."""
    train(tmp_path)
    train(tmp_path, *torchrun(2))
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    assert (alone["size"], first["size"]) == (1, 2)
    for kind in ("network", "average"):
        for name, weight in alone[kind].items():
            assert torch.equal(first[kind][name], second[kind][name])
            assert torch.allclose(first[kind][name], weight, rtol=0, atol=1e-6), name
    for one, two in zip(alone["curve"], first["curve"], strict=True):
        assert two[1] == pytest.approx(one[1], abs=1e-5)
    # What only the first process found counts for both.
    assert [row[3] for row in second["curve"]] == [0.0] * 4


def test_a_batch_that_cannot_be_shared_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, *torchrun(3), "--no-python", str(Path(sys.executable)), "-c", TRAIN, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "training: a batch of 4 cannot be shared by 3 processes evenly" in done.stderr
