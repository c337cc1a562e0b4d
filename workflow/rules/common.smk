# What all rules share: the plan, read once; refusals before the first job; closing lines.

import os
import shlex
import sys
from pathlib import Path

from emflow.errors import SettingError
from emflow.io.movies import is_eer
from emflow.io.locations import check_root
from emflow.io.model import model_sha256
from emflow.io.plan import (
    camera_digests,
    check_machine,
    read_plan,
    template_digest,
    unlisted,
)
from emflow.io.start import begin, read_call
from emflow.resources import pipeline_root
from emflow.revisions import REVISIONS


def refuse(error):
    """Stop before the first job with one line: a wrong setting costs nothing else."""
    print(f"emflow: {error}", file=sys.stderr)
    sys.exit(2)


try:
    CALL = read_call() if workflow.is_main_process else None
    # Models are trained without a session, and a job needs no more than its master did.
    PLAN = read_plan(needs_sessions=CALL is not None and not CALL.trains)
    if CALL is not None:
        check_machine(PLAN, jobs_run_here=CALL.jobs_run_here)
        if CALL.runs and PLAN.config.stores.root is not None:
            check_root(PLAN.config.stores.root)
        begin(CALL, config)
    MODEL_SHA256 = {
        stage: model_sha256(folder) for stage, folder in PLAN.models.items()
    }
except SettingError as error:
    refuse(error)

CONFIG = PLAN.config
STORES = f"--stores={shlex.quote(CONFIG.stores.root)}" if CONFIG.stores.root else ""
GPUS = 0 if CONFIG.device == "cpu" else 1

if workflow.is_main_process:
    for name, count in unlisted(PLAN).items():
        print(
            f"emflow: session {name}: {count} files are new and not listed in inputs.tsv; "
            "emflow scan lists them",
            file=sys.stderr,
        )

# Jobs find the emflow that this snakemake was installed with, also where no environment is activated.
shell.prefix(
    f"set -euo pipefail; export PATH={os.path.dirname(sys.executable)}:$PATH; "
)

DENOISED = [
    f"results/spa/{session}/{batch}/denoised.tsv"
    for session, batches in PLAN.batches.items()
    for batch in batches
    if CONFIG.denoise.enabled
]


wildcard_constraints:
    session="[A-Za-z0-9_-]+",
    batch="batch[0-9]+",
    tilt_series="[A-Za-z0-9_-]+",


def this_batch(wildcards):
    """Return the plan's entry of the batch that a job is for."""
    return PLAN.batches[wildcards.session][wildcards.batch]


def batch_files(name):
    """Return an input function: the file of that name in every batch of the session, in order."""
    return lambda wildcards: [
        f"results/spa/{wildcards.session}/{batch}/{name}"
        for batch in PLAN.batches[wildcards.session]
    ]


def optics_flags(wildcards):
    """Return the session's microscope as flags; a STAR file brings its own."""
    session = PLAN.sessions[wildcards.session]
    if session.is_star:
        return f"--star {os.path.abspath(session.micrographs)!r}"
    flags = {
        "pixel-size-angstrom": session.pixel_size_angstrom,
        "voltage-kilovolt": session.voltage_kilovolt,
        "spherical-aberration-millimetre": session.spherical_aberration_millimetre,
        "amplitude-contrast": session.amplitude_contrast,
        "header-pixel-size-angstrom": session.header_pixel_size_angstrom,
    }
    return as_flags(flags)


def as_flags(flags):
    """Return a command's flags, without those that have no value."""
    return " ".join(
        f"--{flag} {value}" for flag, value in flags.items() if value is not None
    )


def switch(name, on):
    """Return the flag that turns a setting on or off."""
    return f"--{name}" if on else f"--no-{name}"


def one_of(sessions):
    """Return a wildcard's pattern that matches these sessions alone, and nothing where there are none."""
    return "|".join(sessions) or "(?!)"


def memory(base_mb, mb_per_megapixel):
    """Return a memory request that follows the micrographs' size and grows with each attempt."""
    return lambda wildcards, threads, attempt: round(
        (
            base_mb
            + threads * mb_per_megapixel * max(16, this_batch(wildcards).megapixels)
        )
        * (1 + 0.5 * (attempt - 1))
    )


def minutes(base, seconds_per_micrograph):
    """Return a time limit that follows the batch's size and doubles with each attempt."""
    return lambda wildcards, attempt: round(
        (base + this_batch(wildcards).micrographs * seconds_per_micrograph / 60)
        * 2 ** (attempt - 1)
    )


onsuccess:
    for session in PLAN.sessions:
        kind = "spa" if session in PLAN.batches else "tomo"
        summary = Path(f"results/{kind}/{session}/summary.txt")
        if summary.is_file():
            print(summary.read_text(), file=sys.stderr)


onerror:
    print(
        "emflow: a job failed, and its log is named above, or the run was stopped. What is finished stays: "
        "mend the cause and go on with emflow run, or snakemake --rerun-incomplete.",
        file=sys.stderr,
    )
