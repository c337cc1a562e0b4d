"""Check STAR files for what RELION rejects or silently misreads."""

import sys
from pathlib import Path

from emflow.cli.progress import say
from emflow.errors import SettingError
from emflow.io.relion_project import check_star_paths, notes_on_star_paths


def check_star(*paths: Path, diameter_angstrom: float | None = None) -> None:
    """Check STAR files and whole exports for what RELION rejects or silently misreads.

    RELION turns a number that it cannot read into 0, ignores labels that it does not know and passes over
    missing coordinate files, each time with return code 0. Each problem is one line on standard output that
    names file, table, column and row; the exit status is then 1. What may be meant, such as a tilt series
    without any defocus, is only noted, on standard error.

    Parameters
    ----------
    paths
        STAR files of micrographs, picks or particles, or folders such as results/spa/my_session/relion or
        results/tomo/my_session/relion, whose files are also checked against each other.
    diameter_angstrom
        Particle diameter: the box of 1.5 diameters must lie inside the micrograph. By default what
        emflow export-relion noted in the file.
    """
    if not paths:
        raise SettingError("check-star: name a STAR file or an export's folder")
    problems = check_star_paths(paths, diameter_angstrom=diameter_angstrom)
    for problem in problems:
        print(problem)
    if problems:
        say("check-star", f"refused: {len(problems)} problems")
        sys.exit(1)
    for note in notes_on_star_paths(paths):
        say("check-star", f"note: {note}")
    say("check-star", "nothing to complain of")
