# micrographs.tsv -> tiles.tsv, and beside it the store of images at the session's stored pixel size


rule build_tiles:
    """Fourier-crop, flatten and normalise the micrographs of a batch."""
    input:
        "results/spa/{session}/{batch}/micrographs.tsv",
    output:
        "results/spa/{session}/{batch}/tiles.tsv",
    log:
        "logs/build_tiles/{session}/{batch}.log",
    benchmark:
        "logs/build_tiles/{session}/{batch}.benchmark.tsv"
    threads: 4
    resources:
        # Where the store lies changes no result.
        stores=STORES,
        # Nor does where its work is done; a profile may say processes or slurm:N.
        dask="threads",
        mem_mb=memory(700, 30),
        runtime=minutes(10, 10),
    params:
        pixel_size=CONFIG.tiles.pixel_size_angstrom,
        outliers=CONFIG.tiles.outlier_sigmas,
        background=CONFIG.tiles.background_sigma_angstrom,
        revision=REVISIONS["build_tiles"],
    shell:
        "emflow build-tiles"
        " --micrographs {input:q}"
        " --pixel-size-angstrom {params.pixel_size:q}"
        " --outlier-sigmas {params.outliers:q}"
        " --background-sigma-angstrom {params.background:q}"
        " --threads {threads}"
        " --dask {resources.dask:q}"
        " --memory-mb {resources.mem_mb}"
        " {resources.stores}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
