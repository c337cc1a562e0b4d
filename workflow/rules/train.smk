# config's train section and a folder of atomic models -> models/: the models that ship, made anew
# A training goes on from its checkpoint, which is no output: snakemake would remove it with them.


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
        start=start_flag(CONFIG.train.picker_init_from),
        # A profile may start several processes that share the training.
        launch="",
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=24 * 60,
    params:
        folder=lambda wildcards, output: os.path.dirname(output.card),
        channels="",
        models=atomic_models_digest,
        ranges=RANGES,
        start=start_digest(CONFIG.train.picker_init_from),
        steps=CONFIG.train.picker_steps,
        schedule=CONFIG.train.schedule,
        patience=CONFIG.train.patience,
        heat_loss=CONFIG.train.heat_loss,
        junk_loss=CONFIG.train.junk_loss,
        scenes=CONFIG.train.scenes,
        seed=CONFIG.train.seed,
        revision=REVISIONS["train_picker"],
    shell:
        "{resources.launch} emflow train-picker"
        " --output {params.folder:q}"
        " {params.channels}"
        " --steps {params.steps:q}"
        " --schedule {params.schedule:q}"
        " --patience {params.patience:q}"
        " --heat-loss {params.heat_loss:q}"
        " --junk-loss {params.junk_loss:q}"
        " --scenes {params.scenes:q}"
        " --seed {params.seed:q}"
        " {params.ranges}"
        " {resources.models}"
        " {resources.start}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --resume"
        " --restart"
        " 2>&1 | tee {log:q}"


use rule train_picker as train_picker_light with:
    output:
        card="models/picker_light/card.json",
        weights="models/picker_light/model.safetensors",
        metrics=report(
            "models/picker_light/metrics.json",
            category="Training",
            subcategory="picker_light",
        ),
        curves=report(
            "models/picker_light/curves.png",
            category="Training",
            subcategory="picker_light",
        ),
        reliability=report(
            "models/picker_light/reliability.png",
            category="Training",
            subcategory="picker_light",
        ),
    log:
        "logs/train_picker/picker_light.log",
    benchmark:
        "logs/train_picker/picker_light.benchmark.tsv"
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        models=atomic_models_flag,
        # Half as wide, it cannot start from the other's weights.
        start="",
        launch="",
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=24 * 60,
    # Other parameters are as above.
    params:
        channels="--channels 8 --channels 16 --channels 32 --channels 64",
        start="",


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
        start=start_flag(CONFIG.train.denoiser_init_from),
        # A profile may start several processes that share the training.
        launch="",
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=24 * 60,
    params:
        models=atomic_models_digest,
        ranges=RANGES,
        start=start_digest(CONFIG.train.denoiser_init_from),
        steps=CONFIG.train.denoiser_steps,
        schedule=CONFIG.train.schedule,
        patience=CONFIG.train.patience,
        scenes=CONFIG.train.scenes,
        seed=CONFIG.train.seed,
        revision=REVISIONS["train_denoiser"],
    shell:
        "{resources.launch} emflow train-denoiser"
        " --output models/denoiser"
        " --steps {params.steps:q}"
        " --schedule {params.schedule:q}"
        " --patience {params.patience:q}"
        " --scenes {params.scenes:q}"
        " --seed {params.seed:q}"
        " {params.ranges}"
        " {resources.models}"
        " {resources.start}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --resume"
        " --restart"
        " 2>&1 | tee {log:q}"
