"""Model folders: ``model.safetensors`` and ``card.json``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from emflow.errors import SettingError
from emflow.io.files import replacing, sha256, write_text
from emflow.model_card import ModelCard

if TYPE_CHECKING:
    from emflow.networks import UNet

WEIGHTS = "model.safetensors"
CARD = "card.json"
_MODELS = Path(__file__).resolve().parent.parent / "models"


def shipped_model(name: str) -> Path:
    """Return the folder of a model that emflow ships: ``"picker"`` or ``"denoiser"``."""
    return _MODELS / name


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model folder.

    Raises
    ------
    SettingError
        When there is none, or it cannot be used; names the file.
    """
    path = folder / CARD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror}); name a model folder") from error
    except ValueError as error:
        raise SettingError(f"{path}: not JSON ({error}); the model is damaged, take another copy") from error
    if not isinstance(content, dict):
        raise SettingError(f"{path}: not a model card; the model is damaged, take another copy")
    try:
        return ModelCard.from_dict(content)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error


def model_sha256(folder: Path) -> str:
    """Return one hash of all that decides what a model answers, in hexadecimal.

    It covers the weights and the entries of the card that results depend on, not the card's prose.

    Raises
    ------
    SettingError
        When a file is missing or the card cannot be used.
    """
    card = read_card(folder)
    weights = _existing_weights(folder)
    entries = json.dumps(card.results_depend_on, sort_keys=True)
    return hashlib.sha256(f"{sha256(weights)} {entries}".encode()).hexdigest()


def check_model(folder: Path, task: str) -> ModelCard:
    """Return a model's card if its weights are the ones that the card vouches for; imports no torch.

    Raises
    ------
    SettingError
        When the folder has no model, one of another task, or a damaged one; one line that names the file.
    """
    card = read_card(folder)
    if card.task != task:
        raise SettingError(
            f"{folder}: this model is for {card.task!r}, not for {task!r}; name another folder"
        )
    path = _existing_weights(folder)
    if sha256(path) != card.weights_sha256:
        raise SettingError(
            f"{path}: its SHA-256 is not the one in {CARD}; the model is damaged, take another copy"
        )
    return card


def load_model(folder: Path, task: str) -> tuple[UNet, ModelCard]:
    """Load a network ready for inference, with its card.

    Parameters
    ----------
    folder
        Model folder.
    task
        ``"pick"`` or ``"denoise"``: what the caller wants it for.

    Returns
    -------
    tuple[UNet, ModelCard]
        The network in single precision, in evaluation mode, on the CPU.

    Raises
    ------
    SettingError
        When the folder has no model, one of another task, or a damaged one; one line that names the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from emflow.networks import build

    card = check_model(folder, task)
    path = _existing_weights(folder)
    data = path.read_bytes()
    network = build(card.architecture)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load(data).items()})
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingError(f"{path}: not weights of the card's architecture: {reason}") from error
    return network.eval(), card


def save_model(folder: Path, network: UNet, card: ModelCard) -> ModelCard:
    """Write a model folder; the weights are stored in half precision.

    Each file appears whole, and the card, which vouches for the weights, comes last.

    Returns
    -------
    ModelCard
        ``card`` with the SHA-256 of the weights.
    """
    import torch
    from safetensors.torch import save

    tensors = {
        name: tensor.detach().cpu().to(torch.float16).contiguous()
        for name, tensor in network.state_dict().items()
    }
    with replacing(folder / WEIGHTS) as partial:
        partial.write_bytes(save(tensors))
    card = replace(card, weights_sha256=sha256(folder / WEIGHTS))
    write_text(folder / CARD, json.dumps(card.to_dict(), indent=1, sort_keys=True) + "\n")
    return card


def _existing_weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.is_file():
        raise SettingError(f"{path}: there is no such file; name a model folder")
    return path
