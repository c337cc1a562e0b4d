# tiles.tsv or denoised.tsv -> picks.tsv, and beside it picks.star with every candidate above the floor


rule pick:
    """Find the particles of a batch, with a calibrated figure of merit."""
    input:
        "results/spa/{session}/{batch}/"
        + {"raw": "tiles.tsv", "denoised": "denoised.tsv"}[CONFIG.pick.image],
    output:
        "results/spa/{session}/{batch}/picks.tsv",
    log:
        "logs/pick/{session}/{batch}.log",
    benchmark:
        "logs/pick/{session}/{batch}.benchmark.tsv"
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        mem_mb=memory(2000, 5),
        runtime=minutes(10, 10),
    params:
        model=CONFIG.pick.model,
        weights=MODEL_SHA256["pick"],
        diameter=lambda wildcards: PLAN.sessions[wildcards.session].diameter_angstrom,
        minimum_distance=CONFIG.pick.minimum_distance_diameters,
        floor=CONFIG.pick.floor,
        revision=REVISIONS["pick"],
    shell:
        "emflow pick"
        " --images {input:q}"
        " --model {params.model:q}"
        " --diameter-angstrom {params.diameter:q}"
        " --minimum-distance-diameters {params.minimum_distance:q}"
        " --floor {params.floor:q}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
