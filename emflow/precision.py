"""In which numbers networks compute: in halves, where a device has instructions for them."""

import torch


def has_fast_bfloat16(device: str | torch.device) -> bool:
    """Return whether bfloat16 pays: on GPUs, and on CPUs that have instructions for it.

    Where they have to be emulated, a network takes ten times as long.
    """
    if torch.device(device).type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def in_halves(device: str | torch.device, *, on_cpu: bool) -> torch.autocast:
    """Return a context in which a network answers in float16 on a GPU.

    Parameters
    ----------
    device
        The network's.
    on_cpu
        Whether it also answers in bfloat16 on a CPU that is fast at it, in a quarter of the time or less. The
        answer hangs on the CPU then, in its third digit: not for picks on micrographs, which are to be the
        same on any.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=on_cpu and has_fast_bfloat16(device))
    return torch.autocast(kind, dtype=torch.float16, enabled=kind == "cuda")
