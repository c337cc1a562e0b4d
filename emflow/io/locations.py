"""Where stores lie: beside their index, or below a root of their own, a folder or an fsspec URL (s3://...).

An index names a store beside it by its name alone, and one elsewhere by its whole location.
"""

import shutil
import uuid
from pathlib import Path
from typing import Any

from emflow.errors import SettingError

Location = Path | str  # a path, or an fsspec URL


def location(text: str) -> Location:
    """Return what a text means: a URL stays a text."""
    return text if "://" in text else Path(text)


def below(root: Location, *names: str) -> Location:
    """Return a place below another."""
    return root.joinpath(*names) if isinstance(root, Path) else "/".join([root.rstrip("/"), *names])


def find_store(folder: Path, store: str) -> Location:
    """Return where the store is that an index in ``folder`` names."""
    found = location(store)
    return folder / found if isinstance(found, Path) else found


def listed(folder: Location, pattern: str) -> list[Location]:
    """Return what in a folder matches a pattern, in order; nothing where there is no such folder."""
    if isinstance(folder, Path):
        return sorted(folder.glob(pattern))
    system, path = _open(folder)
    system.invalidate_cache()
    scheme = folder.partition("://")[0]
    return [f"{scheme}://{str(name).lstrip('/')}" for name in sorted(system.glob(f"{path}/{pattern}"))]


def size_bytes(place: Location) -> int:
    """Return how many bytes a file, or all files of a folder, hold."""
    if isinstance(place, Path):
        return sum(file.stat().st_size for file in [place, *place.rglob("*")] if file.is_file())
    system, path = _open(place)
    return int(system.du(path))


def remove(place: Location) -> None:
    """Remove a file, or a folder with all that is in it; one that is gone is no error."""
    if isinstance(place, Path):
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
        return
    system, path = _open(place)
    if system.exists(path):
        system.rm(path, recursive=True)


def check_root(root: str) -> None:
    """Write and remove a small file below the root of stores.

    Raises
    ------
    SettingError
        If the root's kind is unknown or lacks its package, or it cannot be written.
    """
    place = below(location(root), f"probe.{uuid.uuid4().hex}")
    try:
        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        else:
            system, path = _open(place)
            system.pipe_file(path, b"")
        remove(place)
    # Each kind of store has errors of its own.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingError(f"stores.root: {root}: cannot be written: {reason}") from None


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path there."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    return system, str(path)
