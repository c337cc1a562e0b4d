"""The `emflow` command: one module per subcommand, loaded only when it is called."""

import os
import sys
from collections.abc import Sequence

import cyclopts

import emflow
from emflow.errors import SettingError, SupersededError

COMMANDS = (
    "init",
    "scan",
    "run",
    "profile",
    "clean",
    "import_micrographs",
    "import_tilt_series",
    "import_tomogram",
    "correct_motion",
    "estimate_ctf",
    "build_tiles",
    "denoise",
    "pick",
    "export_relion",
    "correct_tilts",
    "align_tilts",
    "estimate_tilt_ctf",
    "reconstruct",
    "train_session_denoiser",
    "denoise_tomogram",
    "segment",
    "pick_tomogram",
    "match_template",
    "export_tomograms",
    "summarise_tomograms",
    "check_star",
    "summarise",
    "simulate",
    "simulate_movies",
    "simulate_tomograms",
    "train_denoiser",
    "train_picker",
    "train_segmenter",
    "train_tomogram_denoiser",
    "finetune",
    "evaluate",
    "explain_pick",
    "demo",
    "schema",
)

app = cyclopts.App(
    name="emflow",
    version=emflow.__version__,
    help="Movies or micrographs in, RELION-ready picks out. Start with `emflow init --help`.",
)
for command in COMMANDS:
    # "import" alone would be no Python name, hence import_micrographs; lazily, as torch takes seconds.
    app.command(f"emflow.cli.{command}:{command}", name=command.replace("_", "-"))


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
