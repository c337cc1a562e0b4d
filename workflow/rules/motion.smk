# inputs.tsv's rows of a batch of movies -> micrographs.tsv, the micrographs it names, and motion.jsonl


rule correct_motion:
    """Align each movie of a batch, and sum its frames weighted by the damage they show."""
    output:
        "results/spa/{session}/{batch}/micrographs.tsv",
    log:
        "logs/correct_motion/{session}/{batch}.log",
    benchmark:
        "logs/correct_motion/{session}/{batch}.benchmark.tsv"
    wildcard_constraints:
        session=one_of(PLAN.with_movies),
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        # Paths: a moved gain reference changes no result, so params hold its digest.
        camera=camera_flags,
        mem_mb=movie_memory,
        runtime=minutes(10, 60),
    params:
        digest=lambda wildcards: this_batch(wildcards).digest,
        optics=optics_flags,
        movies=movie_flags,
        camera=lambda wildcards: camera_digests(PLAN.sessions[wildcards.session]),
        sums=sum_flags,
        revision=REVISIONS["correct_motion"],
    shell:
        "emflow correct-motion"
        " --inputs inputs.tsv"
        " --session {wildcards.session:q}"
        " --batch {wildcards.batch:q}"
        " --digest {params.digest:q}"
        " {params.optics}"
        " {params.movies}"
        " {resources.camera}"
        " {params.sums}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
