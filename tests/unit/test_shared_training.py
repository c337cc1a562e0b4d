"""A training that processes share gives what one process gives; a process that is alone knows it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emflow.errors import SettingError
from emflow.training import processes

TRAIN = Path(__file__).parents[1] / "shared_training.py"


def train(folder: Path, *launcher: str, end: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the small training in a folder."""
    return subprocess.run(
        [sys.executable, *launcher, str(TRAIN), str(folder), *(["--end"] if end else [])],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # or torchrun says what it sets
    )


def torchrun(processes: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")


def test_two_processes_learn_what_one_learns(tmp_path):
    """Up to the order in which float32 is summed."""
    for launcher in ((), torchrun(2)):
        done = train(tmp_path, *launcher)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # Neither logs nor checkpoints but what was asked for.
    assert {path.name for path in tmp_path.iterdir()} == {"1_0.pt", "2_0.pt", "2_1.pt"}
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    for kind in ("network", "average"):
        for name, weight in alone[kind].items():
            assert torch.equal(first[kind][name], second[kind][name])
            assert torch.allclose(first[kind][name], weight, rtol=0, atol=1e-6), name
    for one, two in zip(alone["curve"], first["curve"], strict=True):
        assert two[1] == pytest.approx(one[1], abs=1e-5)
    # The first process speaks, and what it found counts for both.
    assert (first["reports"], second["reports"]) == ([0] * 4, [])
    assert [row[3] for row in second["curve"]] == [0.0] * 4


def test_a_batch_that_cannot_be_shared_is_one_line(tmp_path):
    done = train(tmp_path, *torchrun(3))
    assert done.returncode != 0
    assert "training: a batch of 4 cannot be shared by 3 processes evenly" in done.stderr


def test_a_signal_ends_it_as_one_that_failed(tmp_path):
    """Lightning would finish the step and exit with 0."""
    assert train(tmp_path, end=True).returncode == -signal.SIGTERM
    assert not list(tmp_path.iterdir())


@pytest.fixture
def launched(monkeypatch):
    """Set what a launcher sets, and nothing else of its kind."""
    for name in os.environ:
        if name.startswith(("SLURM_", "TORCHELASTIC_", "LOCAL_", "MASTER_")):
            monkeypatch.delenv(name)
    # What joining sets besides is taken back, too.
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def launch(**variables: object) -> None:
        os.environ.update({name: str(value) for name, value in variables.items()})

    return launch


STEP = {"SLURM_JOB_ID": 7, "SLURM_STEP_ID": 0, "SLURM_PROCID": 1, "SLURM_LOCALID": 1, "SLURM_NODEID": 0}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0},
        # A job's script, whatever tasks the job has; and the step of one task that snakemake starts in it.
        {"SLURM_JOB_ID": 7, "SLURM_NTASKS": 2, "SLURM_PROCID": 0, "SLURM_LOCALID": 0},
        {**STEP, "SLURM_NTASKS": 1, "SLURM_STEP_NUM_TASKS": 1, "SLURM_STEP_NUM_NODES": 1},
    ],
)
def test_a_process_that_is_alone_joins_nobody(launched, variables):
    launched(**variables)
    assert processes.join("cpu") is None


def test_the_processes_of_an_srun_are_told_apart(launched):
    launched(**STEP, SLURM_NTASKS=2, SLURM_STEP_NUM_TASKS=2, SLURM_STEP_NUM_NODES=1)
    team = processes.join("cpu")
    assert (team.size, team.on_node, team.nodes, team.leads) == (2, 2, 1, False)
    assert team.environment.main_address == "127.0.0.1"
    assert not team.environment.auto_requeue
    launched(SLURM_NTASKS=3, SLURM_STEP_NUM_TASKS=3, SLURM_STEP_NUM_NODES=2)
    with pytest.raises(SettingError, match="srun: 3 processes on 2 machines"):
        processes.join("cpu")


def test_more_processes_than_gpus_are_refused(launched, monkeypatch):
    launched(TORCHELASTIC_RUN_ID="x", WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, RANK=0, LOCAL_RANK=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingError, match=r"more processes \(2\) than GPUs that they see \(1\)"):
        processes.join("auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes.join("auto").device == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert processes.join("auto").device == torch.device("cpu")
    with pytest.raises(SettingError, match="cuda was asked for"):
        processes.join("cuda")
