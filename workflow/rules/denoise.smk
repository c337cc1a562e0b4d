# tiles.tsv -> denoised.tsv, and beside it the store of denoised images


rule denoise:
    """Denoise the stored images of a batch."""
    input:
        "results/spa/{session}/{batch}/tiles.tsv",
    output:
        "results/spa/{session}/{batch}/denoised.tsv",
    log:
        "logs/denoise/{session}/{batch}.log",
    benchmark:
        "logs/denoise/{session}/{batch}.benchmark.tsv"
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        # Where the store lies changes no result.
        stores=STORES,
        # Nor does where its work is done; a profile may say processes or slurm:N.
        dask="threads",
        mem_mb=memory(2000, 5),
        runtime=minutes(10, 10),
    params:
        model=CONFIG.denoise.model,
        weights=MODEL_SHA256.get("denoise"),
        revision=REVISIONS["denoise"],
    shell:
        "emflow denoise"
        " --tiles {input:q}"
        " --model {params.model:q}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --dask {resources.dask:q}"
        " --memory-mb {resources.mem_mb}"
        " {resources.stores}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
