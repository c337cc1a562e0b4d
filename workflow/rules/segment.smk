# tomogram.tsv or denoised.tsv -> segmented.tsv - picks.tsv, and beside it picks.star with every candidate;
# tomogram.tsv, segmented.tsv -> matched.tsv, and beside it matched.star: what a template finds


rule segment:
    """Say the class of every voxel of a tomogram, slice by slice."""
    input:
        image_to_segment,
    output:
        "results/tomo/{session}/{tilt_series}/segmented.tsv",
    log:
        "logs/segment/{session}/{tilt_series}.log",
    benchmark:
        "logs/segment/{session}/{tilt_series}.benchmark.tsv"
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        stores=STORES,
        mem_mb=tomogram_memory(4000, 60),
        runtime=tomogram_minutes(30, 10),
    params:
        model=CONFIG.segment.model,
        weights=MODEL_SHA256.get("segment"),
        axes=CONFIG.segment.axes,
        looks=CONFIG.segment.looks,
        mrc=switch("mrc", CONFIG.segment.mrc),
        revision=REVISIONS["segment"],
    shell:
        "emflow segment"
        " --tomogram {input:q}"
        " --model {params.model:q}"
        " --axes {params.axes:q}"
        " --looks {params.looks}"
        " {params.mrc}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " {resources.stores}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"


rule pick_tomogram:
    """Find the particles of a tomogram in its segmentation."""
    input:
        "results/tomo/{session}/{tilt_series}/segmented.tsv",
    output:
        "results/tomo/{session}/{tilt_series}/picks.tsv",
    log:
        "logs/pick_tomogram/{session}/{tilt_series}.log",
    benchmark:
        "logs/pick_tomogram/{session}/{tilt_series}.benchmark.tsv"
    threads: 1
    resources:
        mem_mb=tomogram_memory(2000, 60),
        runtime=tomogram_minutes(30, 5),
    params:
        classes=" ".join(
            f"--classes {shlex.quote(name)}" for name in CONFIG.pick_tomogram.classes
        ),
        minimum_distance=CONFIG.pick_tomogram.minimum_distance_angstrom,
        minimum_volume=CONFIG.pick_tomogram.minimum_volume_cubic_angstrom,
        floor=CONFIG.pick_tomogram.floor,
        normals=switch("membrane-normals", CONFIG.pick_tomogram.membrane_normals),
        revision=REVISIONS["pick_tomogram"],
    shell:
        "emflow pick-tomogram"
        " --segmented {input:q}"
        " {params.classes}"
        " --minimum-distance-angstrom {params.minimum_distance:q}"
        " --minimum-volume-cubic-angstrom {params.minimum_volume:q}"
        " --floor {params.floor:q}"
        " {params.normals}"
        " --threads {threads}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"


rule match_template:
    """Find the particles of a tomogram by their likeness to a template, with their angles."""
    input:
        tomogram="results/tomo/{session}/{tilt_series}/tomogram.tsv",
        tilts=tilts_to_match,
        segmented=segmentation_to_match,
    output:
        "results/tomo/{session}/{tilt_series}/matched.tsv",
    log:
        "logs/match_template/{session}/{tilt_series}.log",
    benchmark:
        "logs/match_template/{session}/{tilt_series}.benchmark.tsv"
    threads: 4
    resources:
        gpu=GPUS,
        device=CONFIG.device,
        mem_mb=tomogram_memory(4000, 60),
        runtime=tomogram_minutes(60, 20),
    params:
        template=CONFIG.template_matching.template,
        digest=lambda wildcards: template_digest(CONFIG.template_matching.template),
        name=CONFIG.template_matching.name,
        diameter=CONFIG.template_matching.diameter_angstrom,
        template_pixel_size=CONFIG.template_matching.template_pixel_size_angstrom,
        pixel_size=CONFIG.template_matching.pixel_size_angstrom,
        step=CONFIG.template_matching.angular_step_degrees,
        symmetry=CONFIG.template_matching.symmetry,
        minimum_distance=CONFIG.template_matching.minimum_distance_angstrom,
        threshold=CONFIG.template_matching.threshold,
        floor=CONFIG.template_matching.floor,
        outside=outside_flags,
        segmented=segmented_flag,
        wedge=wedge_flags,
        revision=REVISIONS["match_template"],
    shell:
        "emflow match-template"
        " --tomogram {input.tomogram:q}"
        " {params.wedge}"
        " --template {params.template:q}"
        " --name {params.name:q}"
        " --diameter-angstrom {params.diameter:q}"
        " --template-pixel-size-angstrom {params.template_pixel_size:q}"
        " --pixel-size-angstrom {params.pixel_size:q}"
        " --angular-step-degrees {params.step:q}"
        " --symmetry {params.symmetry:q}"
        " --minimum-distance-angstrom {params.minimum_distance:q}"
        " --threshold {params.threshold:q}"
        " --floor {params.floor:q}"
        " {params.segmented}"
        " {params.outside}"
        " --device {resources.device:q}"
        " --threads {threads}"
        " --output {output:q}"
        " 2>&1 | tee {log:q}"
