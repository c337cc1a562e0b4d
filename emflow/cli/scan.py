"""List new and changed files in inputs.tsv."""

from emflow.cli.progress import say
from emflow.io.scan import Scan
from emflow.io.scan import scan as scan_folders
from emflow.io.settings import read_config, read_sessions


def scan() -> None:
    """Bring inputs.tsv of this session folder up to date with the folders it watches.

    New files and changed ones go to new batches; what is listed stays as it is.
    """
    report(scan_folders(read_sessions(), read_config().batches.size))


def report(result: Scan) -> None:
    """Say what a scan did."""
    say("scan", f"{result.added} files added to inputs.tsv")
    if result.superseding:
        say("scan", f"{result.superseding} of them are newer versions of files listed before")
    if result.growing:
        say(
            "scan",
            f"{len(result.growing)} files still grow and wait for the next scan: {result.growing[0]} ...",
        )
