# inputs.tsv's rows of a batch -> results/spa/{session}/{batch}/micrographs.tsv


rule import_micrographs:
    """Check each micrograph of a batch, and say what is known of it."""
    output:
        "results/spa/{session}/{batch}/micrographs.tsv",
    log:
        "logs/import_micrographs/{session}/{batch}.log",
    benchmark:
        "logs/import_micrographs/{session}/{batch}.benchmark.tsv"
    wildcard_constraints:
        session=one_of(PLAN.with_micrographs),
    threads: 1
    resources:
        mem_mb=memory(500, 12),
        runtime=minutes(10, 1),
    params:
        digest=lambda wildcards: this_batch(wildcards).digest,
        optics=optics_flags,
        revision=REVISIONS["import_micrographs"],
    shell:
        "emflow import-micrographs"
        " --inputs inputs.tsv"
        " --session {wildcards.session:q}"
        " --batch {wildcards.batch:q}"
        " --digest {params.digest:q}"
        " {params.optics}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
