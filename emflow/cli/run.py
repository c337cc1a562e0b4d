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


def run(*flags: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Scan for new files, then run snakemake in this session folder.

    Parameters
    ----------
    flags
        Passed to snakemake as they are; without --cores, --profile or --executor all cores of this machine
        are used.
    """
    if not Path("Snakefile").is_file():
        raise SettingError(
            f"{Path.cwd()}: has no Snakefile; run this in a session folder that emflow init made"
        )
    scan()
    read_plan()  # a wrong setting is told here, before snakemake starts
    # The snakemake beside this Python, also where no environment is activated.
    command = [str(Path(sys.executable).with_name("snakemake")), *flags]
    where = ("--cores", "-c", "--jobs", "-j", "--profile", "--workflow-profile", "--executor", "-e")
    if not any(flag.split("=")[0] in where for flag in flags):
        command += ["--cores", "all"]
    print(shlex.join(["snakemake", *command[1:]]), file=sys.stderr, flush=True)
    os.execv(command[0], command)
