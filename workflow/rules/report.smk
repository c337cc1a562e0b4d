# relion/export.tsv -> summary.txt, summary.json and overlays/*.png, for a person


rule summarise:
    """Say what was found and lost, and draw the picks on the micrographs."""
    input:
        export="results/spa/{session}/relion/export.tsv",
        batches=batch_files("picks.tsv"),
        denoised=lambda wildcards: (
            batch_files("denoised.tsv")(wildcards) if CONFIG.denoise.enabled else []
        ),
    output:
        json=report("results/spa/{session}/summary.json", category="Summary"),
        text=report("results/spa/{session}/summary.txt", category="Summary"),
    log:
        "logs/summarise/{session}.log",
    benchmark:
        "logs/summarise/{session}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        overlays=CONFIG.summarise.overlays,
        diameter=lambda wildcards: PLAN.sessions[wildcards.session].diameter_angstrom,
        revision=REVISIONS["summarise"],
    shell:
        "emflow summarise"
        " --export {input.export:q}"
        " --session {wildcards.session:q}"
        " --overlays {params.overlays:q}"
        " --diameter-angstrom {params.diameter:q}"
        " --output {output.json:q}"
        " 2>&1 | tee {log:q}"
