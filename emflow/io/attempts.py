"""Stores as attempts: who wrote them, whether they are whole, and which one counts.

A store lies beside its index, or at a place of its own: a folder or an fsspec URL (`emflow.io.locations`).
It belongs to the attempt that wrote it: its name is unique, and the stage's index, written last, says
which one counts. An attempt that ends after one that began later (a run was killed, and its job lived on)
leaves that one's index and store alone.
"""

import time
import uuid
from pathlib import Path
from typing import Any

import zarr

from emflow.io.locations import Location, below, listed, remove


class Attempt:
    """A new OME-Zarr group that is written by one attempt of one stage.

    Parameters
    ----------
    index
        The table that will name the store, ``<stage>.tsv``.
    root
        The store becomes ``<stage>.<attempt>.zarr`` beside its index; with a root, below
        ``root/<name of the index's folder's folder>/<name of its folder>``.
    about
        What else the store says of itself.

    Attributes
    ----------
    path
        Where the store is.
    name
        What its index calls it: see `emflow.io.locations.find_store`.
    """

    def __init__(self, index: Path, root: Location | None, about: dict[str, Any]) -> None:
        self.stage = index.stem
        self._index = index.absolute()
        self._folder = store_folder(index, root)
        name = f"{self.stage}.{uuid.uuid4().hex[:12]}.zarr"
        self.path = below(self._folder, name)
        self.name = name if root is None else str(self.path)
        self.group = zarr.open_group(self.path, mode="w-", zarr_format=3)
        self.started = time.time_ns()
        self._about = {"stage": self.stage, "index": str(self._index), **about, "started": self.started}
        self.group.attrs["emflow"] = {**self._about, "complete": False}

    def finish(self) -> None:
        """Mark the store as complete, so that a later attempt may remove it."""
        self.group.attrs["emflow"] = {**self._about, "complete": True}

    def discard(self) -> None:
        """Remove the store: its attempt failed."""
        remove(self.path)

    def remove_superseded(self) -> None:
        """Remove earlier attempts' complete stores; call after the index names this one.

        An incomplete one may have a living writer: `emflow clean` removes it when nobody runs.
        """
        for other in stores_of(self._index, self._folder):
            if other != self.path and is_complete(other) and not self.began_before(other):
                remove(other)

    def began_before(self, other: Location) -> bool:
        """Whether the store at ``other`` was begun after this one: its attempt is the one that counts."""
        return int(_about(other).get("started", 0)) > self.started


def store_folder(index: Path, root: Location | None) -> Location:
    """Return the folder of an index's stores."""
    folder = index.absolute().parent
    return folder if root is None else below(root, folder.parent.name, folder.name)


def stores_of(index: Path, folder: Location) -> list[Location]:
    """Return the stores in a folder that were written for an index, whether or not it names them."""
    return [store for store in listed(folder, f"{index.stem}.*.zarr") if belongs_to(store, index)]


def belongs_to(store: Location, index: Path) -> bool:
    """Whether a store was written for an index.

    Several session folders may share a root: elsewhere than beside its index, a store says whose it is.
    """
    index = index.absolute()
    beside = isinstance(store, Path) and store.parent == index.parent
    return beside or _about(store).get("index") == str(index)


def is_complete(path: Location) -> bool:
    """Whether the store's writer has finished."""
    return _about(path).get("complete") is True


def _about(path: Location) -> dict[str, Any]:
    """Return what a store's writer says of it; nothing where there is no store."""
    try:
        about = zarr.open_group(path, mode="r").attrs.get("emflow")
    except (FileNotFoundError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
