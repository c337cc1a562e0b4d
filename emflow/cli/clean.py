"""Remove a batch's stores together with their indexes, and what dead attempts left."""

import shutil
from pathlib import Path

from emflow.cli.progress import say
from emflow.errors import SettingError
from emflow.io.index import StoreRow, read_index
from emflow.io.plan import RESULTS

STAGES = ("tiles", "denoised")


def clean(*, stage: str | None = None, session: str | None = None, dry_run: bool = False) -> None:
    """Remove stores that no index names; with --stage, that stage's stores and indexes as well.

    Run it when no job of this folder runs: an attempt that is still being written has no index yet.

    Parameters
    ----------
    stage
        tiles or denoised: remove these altogether; the next run makes them again.
    session
        Only of this session.
    dry_run
        Only say what would go.
    """
    if stage is not None and stage not in STAGES:
        raise SettingError(f"--stage {stage}: should be one of {', '.join(STAGES)}")
    freed = 0
    for folder in sorted(RESULTS.glob(f"spa/{session or '*'}/batch*")):
        for name in STAGES:
            index = folder / f"{name}.tsv"
            used = {row.store for row in read_index(index, StoreRow)} if index.is_file() else set()
            for store in sorted(folder.glob(f"{name}.*.zarr")):
                if stage == name or store.name not in used:
                    freed += _remove(store, dry_run)
            if stage == name and index.is_file():
                freed += _remove(index, dry_run)
    say("clean", f"{freed / 1e6:.1f} MB {'would be' if dry_run else 'were'} freed")


def _remove(path: Path, dry_run: bool) -> int:
    size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    say("clean", f"{'would remove' if dry_run else 'removing'} {path} ({size / 1e6:.1f} MB)")
    if not dry_run:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return size
