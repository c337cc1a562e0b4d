"""Put a snakemake profile where `snakemake --profile NAME` finds it, filled in with what the cluster says."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import platformdirs
from cyclopts import Parameter

from emflow.cli.progress import say
from emflow.cluster import Site, fill_in, read_site
from emflow.errors import SettingError
from emflow.io.files import write_text
from emflow.resources import pipeline_root


def profile(
    name: str = "slurm",
    *,
    output: Path | None = None,
    print_only: Annotated[bool, Parameter(name="--print", negative=())] = False,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Install a snakemake profile: `emflow profile slurm`, then `snakemake --profile slurm` anywhere.

    On a cluster (where sinfo answers) the SLURM profile gets the cluster's own partitions and the way of
    watching jobs that works there. Edit the result as the site needs: each line says what it is for.

    Parameters
    ----------
    name
        Which profile: slurm, local (a workstation) or ci (automatic checks).
    output
        Folder to write config.yaml into; by default NAME in snakemake's configuration folder of this user.
    print_only
        Print the profile and write nothing.
    force
        Replace a profile that is there already and differs.

    Raises
    ------
    SettingError
        If there is no such profile, or a different one is there and ``force`` is not given.
    """
    text = filled_in(name)
    if print_only:
        sys.stdout.write(text)
        return
    target = (output or user_profile(name)) / "config.yaml"
    if target.is_file() and target.read_text(encoding="utf-8") != text and not force:
        raise SettingError(
            f"{target}: a different profile is there and may hold your changes; see what is new with "
            f"`emflow profile {name} --print | diff {target} -`, replace it with --force"
        )
    write_text(target, text)
    say("profile", f"wrote {target}")
    if output is None:
        say("profile", f"use it with: snakemake --profile {name} (a folder {name}/ in a session goes first)")


def user_profile(name: str) -> Path:
    """Return where snakemake looks for this user's profile (~/.config/snakemake/NAME on Linux)."""
    return Path(platformdirs.user_config_dir("snakemake", "snakemake")) / name


def session_profile(name: str) -> str:
    """Return the profile that a new session starts with: the user's own when there is one, else filled in.

    A profile in the session's folder hides the user's of the same name, so it must not undo its edits.
    """
    own = user_profile(name) / "config.yaml"
    return own.read_text(encoding="utf-8") if own.is_file() else filled_in(name)


def filled_in(name: str) -> str:
    """Return emflow's profile of that name, with the cluster's facts where there is a cluster.

    Raises
    ------
    SettingError
        If there is no such profile.
    """
    folder = pipeline_root() / "profiles"
    known = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
    if name not in known:
        raise SettingError(f"profile {name}: there is none; choose one of {', '.join(known)}")
    template = (folder / name / "config.yaml").read_text(encoding="utf-8")
    site = ask_site() if name == "slurm" else None
    return template if site is None else fill_in(template, site)


def ask_site() -> Site | None:
    """Ask sinfo and scontrol what the cluster is; None where SLURM is absent or does not answer."""
    lines = _answer("sinfo", "--noheader", "--format=%P|%a|%l|%c|%m|%G")
    if lines is None:
        return None
    return read_site(lines, _answer("scontrol", "show", "config") or "")


def _answer(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        # Without a controller SLURM's clients try for a long time.
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
