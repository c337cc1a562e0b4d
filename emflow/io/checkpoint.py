"""What a training run leaves behind to go on from, and its curve."""

from pathlib import Path
from typing import Any

import torch

from emflow.errors import SettingError
from emflow.io.files import replacing, write_text

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.csv"


def save_checkpoint(folder: Path, content: dict[str, Any]) -> None:
    """Write ``checkpoint.pt`` and, from its curve, ``curve.csv``; each appears whole."""
    with replacing(folder / CHECKPOINT) as partial:
        torch.save(content, partial)
    rows = [f"{step}," + ",".join(f"{value:.6g}" for value in values) for step, *values in content["curve"]]
    write_text(folder / CURVE, "\n".join(["step,loss,learning_rate,loss_kept_apart", *rows]) + "\n")


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return what was saved last, or None when nothing was.

    Raises
    ------
    SettingError
        When the file is damaged.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        # Nothing but tensors and plain values: a checkpoint from elsewhere must not run code.
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SettingError(
            f"{path}: not a checkpoint of this program; remove it or name another --output"
        ) from error
    return content
