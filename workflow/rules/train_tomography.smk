# config's train section and a folder of atomic models -> models/: those of tomograms, made anew
# Both learn from the same simulated tomograms, which stay in models/tomograms; the segmenter sees some of them as the
# new denoiser leaves them.


rule train_tomogram_denoiser:
    """Train the denoiser of tomograms on simulated ones, and score it on others."""
    output:
        card="models/tomogram_denoiser/card.json",
        weights="models/tomogram_denoiser/model.safetensors",
        metrics=report(
            "models/tomogram_denoiser/metrics.json",
            category="Training",
            subcategory="tomogram_denoiser",
        ),
        curves=report(
            "models/tomogram_denoiser/curves.png",
            category="Training",
            subcategory="tomogram_denoiser",
        ),
    log:
        "logs/train_tomogram_denoiser/tomogram_denoiser.log",
    benchmark:
        "logs/train_tomogram_denoiser/tomogram_denoiser.benchmark.tsv"
    threads: 2
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        models=atomic_models_flag,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=24 * 60,
    params:
        models=atomic_models_digest,
        steps=CONFIG.train.tomogram_denoiser_steps,
        tomograms=CONFIG.train.tomograms,
        seed=CONFIG.train.seed,
        revision=REVISIONS["train_tomogram_denoiser"],
    shell:
        "emflow train-tomogram-denoiser"
        " --output models/tomogram_denoiser"
        " --keep models/tomograms"
        " --crops 156"
        " --steps {params.steps:q}"
        " --tomograms {params.tomograms:q}"
        " --seed {params.seed:q}"
        " {resources.models}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --resume"
        " --restart"
        " 2>&1 | tee {log:q}"


rule train_segmenter:
    """Train the segmenter on simulated tomograms, and score it on others."""
    input:
        denoiser="models/tomogram_denoiser/model.safetensors",
    output:
        card="models/segmenter/card.json",
        weights="models/segmenter/model.safetensors",
        metrics=report(
            "models/segmenter/metrics.json",
            category="Training",
            subcategory="segmenter",
        ),
        curves=report(
            "models/segmenter/curves.png", category="Training", subcategory="segmenter"
        ),
    log:
        "logs/train_segmenter/segmenter.log",
    benchmark:
        "logs/train_segmenter/segmenter.benchmark.tsv"
    threads: 2
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        models=atomic_models_flag,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=24 * 60,
    params:
        models=atomic_models_digest,
        steps=CONFIG.train.segmenter_steps,
        tomograms=CONFIG.train.tomograms,
        seed=CONFIG.train.seed,
        revision=REVISIONS["train_segmenter"],
    shell:
        "emflow train-segmenter"
        " --output models/segmenter"
        " --keep models/tomograms"
        " --denoiser models/tomogram_denoiser"
        " --window 96"
        " --steps {params.steps:q}"
        " --tomograms {params.tomograms:q}"
        " --seed {params.seed:q}"
        " {resources.models}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --resume"
        " --restart"
        " 2>&1 | tee {log:q}"
