"""One training in several processes, as `torchrun` starts them: each takes a part of every batch.

The loss is that of the whole batch, whatever the loss is: every process is given all answers, and the
gradients through its own part add up over the processes to those of one process that had the batch alone.
"""

import os

import torch
from torch import distributed

from emflow.errors import SettingError


def join(wanted: str) -> torch.device | None:
    """Join the processes that `torchrun` started beside this one; None where it started none.

    Parameters
    ----------
    wanted
        "auto", "cpu" or "cuda".

    Returns
    -------
    torch.device or None
        This process's device.

    Raises
    ------
    SettingError
        If there are more processes than GPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    local = int(os.environ["LOCAL_RANK"])
    gpus = 0 if wanted == "cpu" else torch.cuda.device_count()
    if gpus and local >= gpus:
        raise SettingError(f"torchrun: more processes than the {gpus} GPUs that they see")
    if wanted == "cuda" and not gpus:
        raise SettingError("device: cuda was asked for, but no GPU is visible")
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if gpus else "gloo")
    return device


def rank_and_size() -> tuple[int, int]:
    """Return this process's number and how many there are: 0 and 1 where it is alone."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def leads() -> bool:
    """Whether this process speaks and writes for all."""
    return rank_and_size()[0] == 0


def answers(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Return the network's answers to a whole batch, which has gradients in this process's part alone.

    Raises
    ------
    SettingError
        If the batch cannot be shared out evenly.
    """
    rank, size = rank_and_size()
    if size == 1:
        whole: torch.Tensor = network(inputs)
        return whole
    if len(inputs) % size:
        raise SettingError(f"training: a batch of {len(inputs)} cannot be shared by {size} processes evenly")
    own = network(inputs.chunk(size)[rank]).contiguous()
    parts = [torch.empty_like(own) for _ in range(size)]
    distributed.all_gather(parts, own.detach())
    parts[rank] = own
    return torch.cat(parts)


def add_gradients(network: torch.nn.Module) -> None:
    """Make each gradient the sum over all processes."""
    if rank_and_size()[1] == 1:
        return
    for parameter in network.parameters():
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)


def agreed(value: float) -> float:
    """Return the first process's value, so that all decide alike."""
    if rank_and_size()[1] == 1:
        return value
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)
