"""What 50 000 micrographs cost before the first job starts: CPU seconds, wall seconds and peak memory.

Makes a session of that many empty files in batches of 200 under a temporary folder, and asks snakemake to
plan it from nothing, to find that nothing is left to do, and to plan one more batch. No job runs: what the
finished session holds are empty files that snakemake --touch has taken for results.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from emflow.cli.init import SNAKEFILE
from emflow.config import Session
from emflow.io.inputs import INPUTS
from emflow.io.scan import scan
from emflow.io.settings import config_text, write_sessions

BATCH = 200


def run(folder: Path, *command: str) -> tuple[float, float, float, str]:
    """Run a command of this environment; return CPU seconds, wall seconds, peak MB and what it printed."""
    binary = str(Path(sys.executable).with_name(command[0]))
    start = time.monotonic()
    with (folder / "output.txt").open("w+") as output:
        process = subprocess.Popen([binary, *command[1:]], cwd=folder, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - start
        output.seek(0)
        text = output.read()
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{text[-3000:]}")
    return used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, text


def make_session(folder: Path, micrographs: int) -> None:
    """Make a session folder that lists so many files, which hold nothing."""
    (folder / "config").mkdir(parents=True)
    (folder / "config/config.yaml").write_text(config_text())
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "data").mkdir()
    add_files(folder, range(micrographs))
    sessions = [
        Session(
            session="large",
            micrographs=f"{folder}/data/*.mrc",
            pixel_size_angstrom=1.0,
            voltage_kilovolt=300.0,
            spherical_aberration_millimetre=2.7,
            diameter_angstrom=150.0,
        )
    ]
    write_sessions(folder / "config/sessions.tsv", sessions)
    scan(sessions, BATCH, folder / INPUTS)


def add_files(folder: Path, numbers: range) -> None:
    for number in numbers:
        path = folder / f"data/m{number:06d}.mrc"
        path.touch()
        os.utime(path, (1.7e9, 1.7e9))  # old enough to be whole


def finish(folder: Path) -> None:
    """Make every output that a dry run names, and let snakemake take it for finished."""
    planned = run(folder, "snakemake", "-n", "--quiet", "host", "progress")[3]
    for line in re.findall(r"^    output: (.*)$", planned, re.MULTILINE):
        for name in line.split(", "):
            path = folder / name.split(" ")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    run(folder, "snakemake", "--touch", "--cores", "1", "--quiet", "all")


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--micrographs", type=int, nargs="+", default=[50_000])
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| micrographs | what | CPU s | wall s | MB |\n|---|---|---|---|---|")
    for count in arguments.micrographs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve() / "session"
            make_session(folder, count)

            def row(what: str, *command: str, count: int = count, folder: Path = folder) -> str:
                cpu, wall, megabytes, text = run(folder, *command)
                print(f"| {count} | {what} | {cpu:.1f} | {wall:.1f} | {megabytes:.0f} |", flush=True)
                return text

            row("dry run of all", "snakemake", "-n", "--quiet", "all")
            finish(folder)
            said = row("nothing to do, dry run", "snakemake", "-n")
            assert "Nothing to be done" in said, said[-3000:]
            row("nothing to do", "snakemake", "--cores", "1")
            add_files(folder, range(count, count + BATCH))
            row("scan that finds a batch more", "emflow", "scan")
            said = row("dry run of a batch more", "snakemake", "-n", "--quiet", "rules")
            assert re.search(r"^pick +1$", said, re.MULTILINE), said[-3000:]


if __name__ == "__main__":
    main()
