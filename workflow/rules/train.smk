# config's train section and a folder of atomic models -> models/: the models that ship, made anew
# A training goes on from its checkpoint, which is no output: snakemake would remove it with them.

import hashlib

from emflow.io.atomic_model_files import atomic_model_files
from emflow.io.files import sha256

# snakemake train_models --config atomic_models=FOLDER names it as well.
ATOMIC_MODELS = config.get("atomic_models", CONFIG.train.atomic_models)


def atomic_models_digest(wildcards):
    """Return one hash of the atomic models' names and content: a moved folder changes no result."""
    if ATOMIC_MODELS is None:
        return ""
    try:
        files = atomic_model_files(Path(ATOMIC_MODELS))
    except SettingError as error:
        refuse(error)
    lines = [f"{name} {sha256(path)}" for name, path in files.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def atomic_models_flag(wildcards):
    """Return the flag that names the folder; without one made-up shapes alone are learned from."""
    return f"--models {shlex.quote(str(ATOMIC_MODELS))}" if ATOMIC_MODELS else ""


rule train_picker:
    """Train the picker on simulated micrographs, calibrate it, and score it on shapes held apart."""
    output:
        card="models/picker/card.json",
        weights="models/picker/model.safetensors",
        metrics=report(
            "models/picker/metrics.json", category="Training", subcategory="picker"
        ),
        curves=report(
            "models/picker/curves.png", category="Training", subcategory="picker"
        ),
        reliability=report(
            "models/picker/reliability.png", category="Training", subcategory="picker"
        ),
    log:
        "logs/train_picker/picker.log",
    benchmark:
        "logs/train_picker/picker.benchmark.tsv"
    threads: 2
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        models=atomic_models_flag,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=24 * 60,
    params:
        models=atomic_models_digest,
        steps=CONFIG.train.picker_steps,
        scenes=CONFIG.train.scenes,
        seed=CONFIG.train.seed,
        revision=REVISIONS["train_picker"],
    shell:
        "emflow train-picker"
        " --output models/picker"
        " --steps {params.steps:q}"
        " --scenes {params.scenes:q}"
        " --seed {params.seed:q}"
        " {resources.models}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --resume"
        " --restart"
        " 2>&1 | tee {log:q}"


rule train_denoiser:
    """Train the denoiser on simulated micrographs, and score it on shapes held apart."""
    output:
        card="models/denoiser/card.json",
        weights="models/denoiser/model.safetensors",
        metrics=report(
            "models/denoiser/metrics.json", category="Training", subcategory="denoiser"
        ),
        curves=report(
            "models/denoiser/curves.png", category="Training", subcategory="denoiser"
        ),
    log:
        "logs/train_denoiser/denoiser.log",
    benchmark:
        "logs/train_denoiser/denoiser.benchmark.tsv"
    threads: 2
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        models=atomic_models_flag,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=24 * 60,
    params:
        models=atomic_models_digest,
        steps=CONFIG.train.denoiser_steps,
        scenes=CONFIG.train.scenes,
        seed=CONFIG.train.seed,
        revision=REVISIONS["train_denoiser"],
    shell:
        "emflow train-denoiser"
        " --output models/denoiser"
        " --steps {params.steps:q}"
        " --scenes {params.scenes:q}"
        " --seed {params.seed:q}"
        " {resources.models}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --resume"
        " --restart"
        " 2>&1 | tee {log:q}"
