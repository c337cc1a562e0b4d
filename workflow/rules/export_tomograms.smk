# every tilt series' tables -> relion/, which RELION 5 starts from - summary and pictures


rule export_tomograms:
    """Apply the threshold and write the session as RELION 5 reads it; judge how many series were lost."""
    input:
        picks=series_files("picks.tsv"),
        matched=matched_tables,
        tomograms=series_files("tomogram.tsv"),
        tilts=series_files(TILT_STATE, PLAN.with_tilt_series),
    output:
        "results/tomo/{session}/relion/export.tsv",
    log:
        "logs/export_tomograms/{session}.log",
    benchmark:
        "logs/export_tomograms/{session}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        tilts=TILT_STATE,
        matched=f"--matched-table {MATCHED}" if MATCHED else "",
        threshold=CONFIG.export.threshold,
        max_failed_fraction=CONFIG.export.max_failed_fraction,
        revision=REVISIONS["export_tomograms"],
    shell:
        "emflow export-tomograms"
        " --picks {input.picks:q}"
        " --tilts-table {params.tilts:q}"
        " {params.matched}"
        " --threshold {params.threshold:q}"
        " --max-failed-fraction {params.max_failed_fraction:q}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"


rule summarise_tomograms:
    """Say what was found and lost, and draw slices with their segmentation and picks."""
    input:
        export="results/tomo/{session}/relion/export.tsv",
        segmented=series_files("segmented.tsv"),
        denoised=lambda wildcards: (
            series_files("denoised.tsv")(wildcards)
            if CONFIG.denoise_tomogram.enabled
            else []
        ),
    output:
        json=report("results/tomo/{session}/summary.json", category="Summary"),
        text=report("results/tomo/{session}/summary.txt", category="Summary"),
    log:
        "logs/summarise_tomograms/{session}.log",
    benchmark:
        "logs/summarise_tomograms/{session}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        pictures=CONFIG.summarise.overlays,
        matched=f"--matched-table {MATCHED}" if MATCHED else "",
        revision=REVISIONS["summarise_tomograms"],
    shell:
        "emflow summarise-tomograms"
        " --export {input.export:q}"
        " --session {wildcards.session:q}"
        " {params.matched}"
        " --pictures {params.pictures:q}"
        " --output {output.json:q}"
        " 2>&1 | tee {log:q}"
