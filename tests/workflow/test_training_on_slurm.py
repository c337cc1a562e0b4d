"""Processes that `srun` starts share a training, by hand and from a profile's `launch`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from slurm.runs import environment, jobs_of, look_after_seconds, run
from workflow.test_train_models import change, fill

from emflow.io.model import check_model
from emflow.resources import pipeline_root

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

TRAIN = Path(__file__).parents[1] / "shared_training.py"
# As docs/cluster.md has it, of four GPUs.
SHARED = """
  train_picker:
    slurm_partition: gpu
    gpu: 2
    tasks_per_gpu: 1
    launch: srun --overlap --kill-on-bad-exit --nodes 1 --ntasks 2 --mem 0
"""


@pytest.mark.usefixtures("cluster")
def test_two_processes_of_an_srun_learn_what_one_learns(tmp_path):
    for launcher in ([], ["srun", "--nodes", "1", "--ntasks", "2", "--mem", "2000"]):
        command = [*launcher, sys.executable, str(TRAIN), str(tmp_path)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=300
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    for name, weight in alone["average"].items():
        assert torch.equal(first["average"][name], second["average"][name])
        assert torch.allclose(first["average"][name], weight, rtol=0, atol=1e-6), name
    for one, two in zip(alone["curve"], first["curve"], strict=True):
        assert two[1] == pytest.approx(one[1], abs=1e-5)


def test_a_profile_s_launch_shares_a_training(cluster, tmp_path):
    folder = fill(tmp_path)
    change(folder, picker_steps=2, scenes=1)
    profile = folder / "slurm/config.yaml"
    shutil.copytree(pipeline_root() / "profiles/slurm", profile.parent)
    text = profile.read_text()
    assert text.count("  train_picker: *gpu_rule\n") == 1
    profile.write_text(text.replace("  train_picker: *gpu_rule\n", SHARED))
    look_after_seconds(profile)

    run("snakemake --profile slurm train_picker", folder)

    (job,) = jobs_of(cluster, folder)
    assert (job["JobState"], job["TresPerJob"], job["NumTasks"]) == ("COMPLETED", "gres:gpu:2", "2")
    assert check_model(folder / "models/picker", "pick").training["processes"] == 2
    # One of them speaks for both, and no library besides.
    said = (folder / "logs/train_picker/picker.log").read_text().splitlines()
    assert [line.split()[1] for line in said] == ["simulate:", *["pick:"] * 3], said
