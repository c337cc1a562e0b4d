"""A thin front for snakemake: scan for new files, then run it with every flag passed through."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emflow.cli.scan import scan
from emflow.errors import SettingError
from emflow.io.plan import read_plan


def run(
    *flags: Annotated[str, Parameter(allow_leading_hyphen=True)],
    live: Annotated[bool, Parameter(negative=())] = False,
    until_idle: float | None = None,
    batch_size: int | None = None,
    batch_age: float = 120.0,
    settle: float | None = None,
    poll: float = 5.0,
) -> None:
    """Scan for new files, then run snakemake in this session folder.

    Parameters
    ----------
    flags
        Passed to snakemake as they are; without --cores, --profile or --executor all cores of this machine
        are used.
    live
        Watch the session's folder while a microscope fills it, and run snakemake for what is new, until
        Ctrl-C, SIGTERM or --until-idle. The flags below are for this alone.
    until_idle
        Minutes without a new file after which to stop.
    batch_size
        Micrographs that close a batch; by default batches.size of config.yaml.
    batch_age
        Seconds after which a batch is closed however few files it has.
    settle
        Seconds without a change after which a file counts as whole; 10, and 300 for a tilt series, which
        grows with each exposure.
    poll
        Seconds between two looks at the folder.
    """
    if not Path("Snakefile").is_file():
        raise SettingError(
            f"{Path.cwd()}: has no Snakefile; run this in a session folder that emflow init made"
        )
    # The snakemake beside this Python, also where no environment is activated.
    command = [str(Path(sys.executable).with_name("snakemake")), *flags]
    where = ("--cores", "-c", "--jobs", "-j", "--profile", "--workflow-profile", "--executor", "-e")
    if not any(flag.split("=")[0] in where for flag in flags):
        command += ["--cores", "all"]
    command.append("--rerun-incomplete")  # what an interrupted run left half-made is made again
    if live:
        from emflow.cli.live import LiveSettings, watch

        settings = LiveSettings(until_idle, batch_size, batch_age, settle, poll)
        # One bad batch costs no other.
        sys.exit(watch([*command, "--keep-going"], settings))
    scan()
    read_plan()  # a wrong setting is told here, before snakemake starts
    print(shlex.join(["snakemake", *command[1:]]), file=sys.stderr, flush=True)
    os.execv(command[0], command)
