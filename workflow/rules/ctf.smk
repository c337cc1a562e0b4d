# micrographs.tsv -> ctf.tsv, the same table with CTFs, and beside it ctf/: a picture of each fit, failures.tsv


rule estimate_ctf:
    """Estimate defocus and astigmatism of a batch from its Thon rings, with a calibrated figure of merit."""
    input:
        "results/spa/{session}/{batch}/micrographs.tsv",
    output:
        "results/spa/{session}/{batch}/ctf.tsv",
    log:
        "logs/estimate_ctf/{session}/{batch}.log",
    benchmark:
        "logs/estimate_ctf/{session}/{batch}.benchmark.tsv"
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        mem_mb=memory(1000, 30),
        runtime=minutes(10, 10),
    params:
        min_defocus=CONFIG.ctf.min_defocus_angstrom,
        max_defocus=CONFIG.ctf.max_defocus_angstrom,
        max_astigmatism=CONFIG.ctf.max_astigmatism_angstrom,
        coarsest=CONFIG.ctf.coarsest_resolution_angstrom,
        finest=CONFIG.ctf.finest_resolution_angstrom,
        phase_plate=switch("phase-plate", CONFIG.ctf.phase_plate),
        replace=switch("replace", CONFIG.ctf.replace),
        source=CONFIG.ctf.source,
        revision=REVISIONS["estimate_ctf"],
    shell:
        "emflow estimate-ctf"
        " --micrographs {input:q}"
        " --min-defocus-angstrom {params.min_defocus:q}"
        " --max-defocus-angstrom {params.max_defocus:q}"
        " --max-astigmatism-angstrom {params.max_astigmatism:q}"
        " --coarsest-resolution-angstrom {params.coarsest:q}"
        " --finest-resolution-angstrom {params.finest:q}"
        " {params.phase_plate}"
        " {params.replace}"
        " --source {params.source:q}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
