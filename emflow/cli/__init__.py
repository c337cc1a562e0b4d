"""The `emflow` command: one module per subcommand, loaded only when it is called."""

import os
import sys
from collections.abc import Sequence

import cyclopts

import emflow
from emflow.errors import SettingError, SupersededError

COMMANDS = {
    "A session": {
        "init": "Start a session on micrographs, movies, tilt series or tomograms.",
        "scan": "List the files that have come since.",
        "run": "Scan, then run snakemake; with --live again and again while the microscope works.",
        "profile": "Write a profile for this site's SLURM, or for a workstation.",
        "clean": "Remove what attempts that were killed have left.",
        "check_star": "Refuse what RELION would take and get wrong.",
        "demo": "Run the pipeline on the data that comes with it.",
    },
    "Stages for micrographs, as the rules call them": {
        "import_micrographs": "Read headers; leave out what is damaged.",
        "correct_motion": "Align and sum movies.",
        "estimate_ctf": "Fit defocus and astigmatism.",
        "build_tiles": "Store micrographs flattened, as OME-Zarr.",
        "denoise": "Denoise for eyes.",
        "pick": "Find particles.",
        "export_relion": "Write STAR files.",
        "summarise": "Write numbers and pictures.",
    },
    "Stages for tomograms": {
        "import_tilt_series": "Read mdoc, tilts and alignments.",
        "import_tomogram": "Read a tomogram, or its halves.",
        "correct_tilts": "Sum movies; leave out dark and blocked tilts.",
        "align_tilts": "Find shifts and tilt axis, without fiducials.",
        "estimate_tilt_ctf": "Fit the defocus of each tilt.",
        "reconstruct": "Back-project, whole and by halves.",
        "train_session_denoiser": "Train a denoiser on the session's own halves.",
        "denoise_tomogram": "Denoise a tomogram.",
        "segment": "Label membranes, ribosomes, filaments and more.",
        "pick_tomogram": "Pick from a segmentation.",
        "match_template": "Pick with a template.",
        "export_tomograms": "Write STAR files for RELION 5.",
        "summarise_tomograms": "Write numbers and pictures.",
    },
    "Models": {
        "finetune": "Teach the picker a specimen by some picks.",
        "explain_pick": "Draw what a pick was decided on.",
        "evaluate": "Score the models on particles kept apart.",
        "train_picker": "Train a picker on simulated micrographs.",
        "train_denoiser": "Train a denoiser, on simulation or halves.",
        "train_segmenter": "Train a segmenter, on simulation or labels.",
        "train_tomogram_denoiser": "Train a denoiser of tomograms on simulation.",
    },
    "Simulation": {
        "simulate": "Micrographs with known truth.",
        "simulate_movies": "Movies with known motion.",
        "simulate_tomograms": "Tilt series with known labels.",
    },
    "For those who change emflow": {
        "schema": "Write the schemas of config.yaml and the session's table.",
    },
}


def _app(*, listing: bool) -> cyclopts.App:
    """Return the command line; the help of a single command is its own docstring, not the list's line."""
    app = cyclopts.App(
        name="emflow",
        version=emflow.__version__,
        help="Movies, micrographs, tilt series or tomograms in, RELION-ready picks out. Start with "
        "`emflow init --help`.",
    )
    for number, (title, commands) in enumerate(COMMANDS.items()):
        group = cyclopts.Group(title, sort_key=number)
        for position, (command, said) in enumerate(commands.items()):
            # "import" alone would be no Python name, hence import_micrographs. Lazily: torch takes seconds.
            app.command(
                f"emflow.cli.{command}:{command}",
                name=command.replace("_", "-"),
                help=said if listing else None,
                group=group,
                sort_key=position,
            )
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a wrong setting is one line and exit status 2.

    With ``--debug`` anywhere (or EMFLOW_DEBUG set) errors keep their traceback.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = bool(os.environ.get("EMFLOW_DEBUG"))
    # What follows `emflow run` is snakemake's, and snakemake has a --debug of its own.
    if "--debug" in tokens and tokens[:1] != ["run"]:
        tokens.remove("--debug")
        debug = True
    try:
        app = _app(listing=tokens in ([], ["--help"], ["-h"]))
        app(tokens, result_action="return_value", exit_on_error=False, print_error=False)
    except SettingError as error:
        if debug:
            raise
        print(f"emflow: {error}", file=sys.stderr)
        sys.exit(2)
    except SupersededError as error:
        print(f"emflow: {error}", file=sys.stderr)
    except cyclopts.CycloptsError as error:
        if debug:
            raise
        print(f"emflow: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # A full disk, a lost mount: the job fails whole; its half-written files were not renamed into place.
        if debug:
            raise
        print(f"emflow: {error}", file=sys.stderr)
        sys.exit(1)
