# picks.tsv and ctf.tsv of every batch -> relion/, which RELION 3.1, 4 and 5 take as it is


rule export_relion:
    """Apply the threshold and write the session as RELION reads it; judge how many inputs were lost."""
    input:
        picks=batch_files("picks.tsv"),
        ctf=lambda wildcards: (
            batch_files("ctf.tsv")(wildcards) if CONFIG.ctf.enabled else []
        ),
    output:
        "results/spa/{session}/relion/export.tsv",
    log:
        "logs/export_relion/{session}.log",
    benchmark:
        "logs/export_relion/{session}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        estimated_ctf=switch("estimated-ctf", CONFIG.ctf.enabled),
        threshold=CONFIG.export.threshold,
        diameter=lambda wildcards: PLAN.sessions[wildcards.session].diameter_angstrom,
        max_failed_fraction=CONFIG.export.max_failed_fraction,
        revision=REVISIONS["export_relion"],
    shell:
        "emflow export-relion"
        " --batches {input.picks:q}"
        " {params.estimated_ctf}"
        " --threshold {params.threshold:q}"
        " --diameter-angstrom {params.diameter:q}"
        " --max-failed-fraction {params.max_failed_fraction:q}"
        " --output $(dirname {output:q})"
        " --index {output:q}"
        " 2>&1 | tee {log:q}"
