"""Remove a batch's stores together with their indexes, and what dead attempts left."""

from pathlib import Path

from emflow.cli.progress import say
from emflow.errors import SettingError
from emflow.io.attempts import belongs_to, store_folder, stores_of
from emflow.io.index import named_stores
from emflow.io.locations import Location, find_store, location, remove, size_bytes
from emflow.io.plan import RESULTS
from emflow.io.settings import read_config

STAGES = ("tiles", "denoised", "corrected", "tomogram", "segmented")
# Where each mode keeps its folders of tables.
_FOLDERS = ("spa/{session}/batch*", "tomo/{session}/*")


def clean(*, stage: str | None = None, session: str | None = None, dry_run: bool = False) -> None:
    """Remove stores that no index names; with --stage, that stage's stores and indexes as well.

    Run it when no job of this folder runs: an attempt that is still being written has no index yet.

    Parameters
    ----------
    stage
        tiles, denoised, corrected, tomogram or segmented: remove these altogether; the next run makes them
        again.
    session
        Only of this session.
    dry_run
        Only say what would go.
    """
    if stage is not None and stage not in STAGES:
        raise SettingError(f"--stage {stage}: should be one of {', '.join(STAGES)}")
    freed = 0
    root = read_config().stores.root
    patterns = [pattern.format(session=session or "*") for pattern in _FOLDERS]
    for folder in sorted(path for pattern in patterns for path in RESULTS.glob(pattern)):
        for name in STAGES:
            index = folder / f"{name}.tsv"
            used = {find_store(folder.absolute(), store) for store in named_stores(index)}
            places = {None, None if root is None else location(root)}
            found = {store for place in places for store in stores_of(index, store_folder(index, place))}
            # A copy of a session's folder names the stores of the original, which are not its own.
            own = found | {store for store in used if belongs_to(store, index)}
            for store in sorted(own if stage == name else own - used, key=str):
                freed += _remove(store, dry_run)
            if stage == name and index.is_file():
                freed += _remove(index, dry_run)
    say("clean", f"{freed / 1e6:.1f} MB {'would be' if dry_run else 'were'} freed")


def _remove(place: Location, dry_run: bool) -> int:
    size = size_bytes(place)
    say("clean", f"{'would remove' if dry_run else 'removing'} {place} ({size / 1e6:.1f} MB)")
    if not dry_run:
        remove(place)
        if isinstance(place, Path) and place.exists():
            raise SettingError(f"{place}: could not be removed")
    return size
