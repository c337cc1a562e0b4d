# a ready tomogram, or tilt_ctf.tsv -> tomogram.tsv - denoised.tsv, each with its store; denoiser/ is a session's own


rule import_tomogram:
    """Copy a ready tomogram, or its halves, into a store."""
    output:
        "results/tomo/{session}/{tilt_series}/tomogram.tsv",
    log:
        "logs/import_tomogram/{session}/{tilt_series}.log",
    benchmark:
        "logs/import_tomogram/{session}/{tilt_series}.benchmark.tsv"
    wildcard_constraints:
        session=one_of(PLAN.with_tomograms),
    threads: 1
    resources:
        stores=STORES,
        halves=halves_flags,
        mem_mb=tomogram_memory(2000, 200),
        runtime=tomogram_minutes(15, 5),
    params:
        digest=lambda wildcards: this_series(wildcards).digest,
        pixel_size=lambda wildcards: PLAN.sessions[
            wildcards.session
        ].pixel_size_angstrom,
        header=header_flag,
        wanted=CONFIG.tomogram.pixel_size_angstrom,
        bright=lambda wildcards: switch(
            "protein-bright", PLAN.sessions[wildcards.session].protein_bright
        ),
        revision=REVISIONS["import_tomogram"],
    shell:
        "emflow import-tomogram"
        " --inputs inputs.tsv"
        " --session {wildcards.session:q}"
        " --tilt-series {wildcards.tilt_series:q}"
        " --digest {params.digest:q}"
        " --pixel-size-angstrom {params.pixel_size:q}"
        " {params.header}"
        " --wanted-pixel-size-angstrom {params.wanted:q}"
        " {params.bright}"
        " {resources.halves}"
        " {resources.stores}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"


rule reconstruct:
    """Reconstruct a tomogram, whole and from halves, slab by slab."""
    input:
        newest_tilts,
    output:
        "results/tomo/{session}/{tilt_series}/tomogram.tsv",
    log:
        "logs/reconstruct/{session}/{tilt_series}.log",
    benchmark:
        "logs/reconstruct/{session}/{tilt_series}.benchmark.tsv"
    wildcard_constraints:
        session=one_of(PLAN.with_tilt_series),
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        stores=STORES,
        # Where its work is done changes no result; a profile may say processes or slurm:N.
        dask="threads",
        mem_mb=tomogram_memory(3000, 60),
        runtime=tomogram_minutes(20, 5),
    params:
        thickness=CONFIG.tomogram.thickness_angstrom,
        filter=CONFIG.tomogram.filter,
        sirt_rounds=CONFIG.tomogram.sirt_rounds,
        ctf=CONFIG.tomogram.ctf,
        mrc=switch("mrc", CONFIG.tomogram.mrc),
        revision=REVISIONS["reconstruct"],
    shell:
        "emflow reconstruct"
        " --tilts {input:q}"
        " --thickness-angstrom {params.thickness:q}"
        " --filter {params.filter:q}"
        " --sirt-rounds {params.sirt_rounds:q}"
        " --ctf {params.ctf:q}"
        " {params.mrc}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --dask {resources.dask:q}"
        " --memory-mb {resources.mem_mb}"
        " {resources.stores}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"


rule train_session_denoiser:
    """Train the denoiser of tomograms further on the session's own halves."""
    input:
        tomograms_to_learn_from,
    output:
        card="results/tomo/{session}/denoiser/card.json",
        weights="results/tomo/{session}/denoiser/model.safetensors",
        metrics=report(
            "results/tomo/{session}/denoiser/metrics.json",
            category="Training",
            subcategory="{session}",
        ),
        curves=report(
            "results/tomo/{session}/denoiser/curves.png",
            category="Training",
            subcategory="{session}",
        ),
    log:
        "logs/train_session_denoiser/{session}.log",
    benchmark:
        "logs/train_session_denoiser/{session}.benchmark.tsv"
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 6 * 60 * attempt,
    params:
        model=CONFIG.denoise_tomogram.model,
        weights=MODEL_SHA256.get("denoise_tomogram"),
        steps=CONFIG.denoise_tomogram.train_steps,
        revision=REVISIONS["train_session_denoiser"],
    shell:
        "emflow train-session-denoiser"
        " --tomograms {input:q}"
        " --model {params.model:q}"
        " --steps {params.steps:q}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --output {output.card:q}"
        " 2>&1 | tee {log:q}"


rule denoise_tomogram:
    """Denoise a tomogram, for eyes and for segmentation; particles come from the raw images."""
    input:
        tomogram="results/tomo/{session}/{tilt_series}/tomogram.tsv",
        trained=session_denoiser_card,
    output:
        "results/tomo/{session}/{tilt_series}/denoised.tsv",
    log:
        "logs/denoise_tomogram/{session}/{tilt_series}.log",
    benchmark:
        "logs/denoise_tomogram/{session}/{tilt_series}.benchmark.tsv"
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        stores=STORES,
        mem_mb=tomogram_memory(4000, 60),
        runtime=tomogram_minutes(30, 10),
    params:
        model=tomogram_denoiser,
        weights=MODEL_SHA256.get("denoise_tomogram"),
        revision=REVISIONS["denoise_tomogram"],
    shell:
        "emflow denoise-tomogram"
        " --tomogram {input.tomogram:q}"
        " --model {params.model:q}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " {resources.stores}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
