"""The processes that share one training, as `torchrun` or `srun` starts them."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from emflow.errors import SettingError

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment


@dataclass(frozen=True)
class Team:
    """The processes that share one training, seen from one of them.

    Attributes
    ----------
    environment
        What Lightning asks who is who.
    device
        This process's.
    on_node, nodes
        Processes on a machine, and machines.
    """

    environment: "ClusterEnvironment"
    device: torch.device
    on_node: int
    nodes: int

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.environment.global_rank() == 0

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.on_node * self.nodes


def join(wanted: str) -> Team | None:
    """Join the processes that `torchrun` or `srun` started beside this one; None where it is alone.

    Parameters
    ----------
    wanted
        "auto", "cpu" or "cuda".

    Raises
    ------
    SettingError
        If there are more processes than GPUs.
    """
    launcher = _launcher()
    if launcher is None:
        return None
    environment, on_node = launcher
    gpus = 0 if wanted == "cpu" else torch.cuda.device_count()
    if gpus and on_node > gpus:
        raise SettingError(f"training: more processes ({on_node}) than GPUs that they see ({gpus})")
    if wanted == "cuda" and not gpus:
        raise SettingError("device: cuda was asked for, but no GPU is visible")
    device = torch.device("cuda", environment.local_rank()) if gpus else torch.device("cpu")
    return Team(environment, device, on_node, environment.world_size() // on_node)


def leads() -> bool:
    """Whether this process speaks for all that share a training; so does one that is alone."""
    launcher = _launcher()
    return launcher is None or launcher[0].global_rank() == 0


def _launcher() -> "tuple[ClusterEnvironment, int] | None":
    """Return who is who, and how many processes a machine has, where a launcher started several."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if os.environ["WORLD_SIZE"] == "1":
            return None
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        return TorchElasticEnvironment(), int(os.environ["LOCAL_WORLD_SIZE"])
    # Of srun's own step: in a job's script, and in the step of one task that snakemake runs in, the job's
    # number of tasks says nothing of processes that run.
    processes = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if processes == 1:
        return None
    nodes = int(os.environ["SLURM_STEP_NUM_NODES"])
    if processes % nodes:
        raise SettingError(f"srun: {processes} processes on {nodes} machines; each must have as many")
    # Lightning asks for what the user wrote, which may be --ntasks and may be meant for the job.
    os.environ |= {"SLURM_NTASKS_PER_NODE": str(processes // nodes), "SLURM_NNODES": str(nodes)}
    if nodes == 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")  # a node's name may not be an address
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    # Snakemake submits a job anew; Lightning must not do so besides.
    return SLURMEnvironment(auto_requeue=False), processes // nodes
