# What the trainings are told of the atomic models that they learn from.

import hashlib
import json

from emflow.errors import BadInputError
from emflow.io.atomic_model_files import atomic_model_files, check_learnable
from emflow.io.files import sha256
from emflow.resources import model_folder

# snakemake train_models --config atomic_models=FOLDER names it as well.
ATOMIC_MODELS = config.get("atomic_models", CONFIG.train.atomic_models)


def atomic_models_digest(wildcards):
    """Return one hash of the atomic models' names and content: a moved folder changes no result."""
    if ATOMIC_MODELS is None:
        return ""
    try:
        files = atomic_model_files(Path(ATOMIC_MODELS))
        check_learnable(files)
    except (SettingError, BadInputError) as error:
        refuse(error)
    lines = [f"{name} {sha256(path)}" for name, path in files.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def atomic_models_flag(wildcards):
    """Return the flag that names the folder; without one made-up shapes alone are learned from."""
    return f"--models {shlex.quote(str(ATOMIC_MODELS))}" if ATOMIC_MODELS else ""


# What the simulation draws otherwise, in the flag itself: a file's place would be no part of the result.
RANGES = (
    f"--ranges {shlex.quote(json.dumps(CONFIG.train.ranges, sort_keys=True))}"
    if CONFIG.train.ranges
    else ""
)


def start_digest(name):
    """Return an input function: the hash of the model that a training starts from."""

    def digest(wildcards):
        try:
            return model_sha256(model_folder(name)) if name else ""
        except SettingError as error:
            refuse(error)

    return digest


def start_flag(name):
    """Return the flag that names that model."""
    return f"--init-from {shlex.quote(name)}" if name else ""
