"""What build_tiles and denoise share: an image per micrograph of a batch, into a store and its index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.cli.workers import Workers
from emflow.errors import BadInputError
from emflow.io.index import (
    FAILED,
    OK,
    MicrographRow,
    StoreRow,
    accepted,
    read_index,
    write_failures,
    write_index,
)
from emflow.io.locations import find_store, location
from emflow.io.store import SHARD_MICROGRAPHS, StoreWriter, checksum

Source = TypeVar("Source", MicrographRow, StoreRow)
# Of a micrograph, while it is transformed: measured, see tests/workflow/test_memory.py.
_COPIES_AT_WORK = 2


@dataclass(frozen=True)
class Geometry:
    """Shape of the images of a batch, and of the unbinned micrographs that they are made from."""

    shape: tuple[int, int]
    unbinned_shape: tuple[int, int]
    unbinned_pixel_size_angstrom: float

    @property
    def pixel_size_angstrom(self) -> tuple[float, float]:
        """Of the images, along (y, x)."""
        return (
            self.unbinned_pixel_size_angstrom * self.unbinned_shape[0] / self.shape[0],
            self.unbinned_pixel_size_angstrom * self.unbinned_shape[1] / self.shape[1],
        )

    @property
    def bytes_of_shard(self) -> int:
        """What making a shard takes: its images twice (as made and as stored), and one micrograph at work."""
        stored, unbinned = (4 * height * width for height, width in (self.shape, self.unbinned_shape))
        return 2 * SHARD_MICROGRAPHS * stored + _COPIES_AT_WORK * (unbinned + stored)


@dataclass(frozen=True)
class ImageBatch(Generic[Source]):
    """Makes the images of one batch; ``make`` turns a row into an image of ``geometry.shape``.

    ``stores`` is where stores lie, when not beside their index: a folder or a URL.
    """

    stage: str
    output: Path
    geometry: Geometry
    make: Callable[[Source], NDArray[np.float32]]
    stores: str | None = None

    def write(self, table: Sequence[Source], workers: Workers, *, at_once: int = 1) -> None:
        """Write the store, then the index of all rows of ``table``; a failed attempt leaves neither.

        Rows for which ``make`` raises `BadInputError` are quarantined. ``at_once`` shards are worked on at
        one time where the workers are threads, fewer where the memory asks for it.
        """
        rows = accepted(table)
        writer = StoreWriter(
            self.output,
            count=len(rows),
            shape=self.geometry.shape,
            pixel_size_angstrom=self.geometry.pixel_size_angstrom,
            names=[row.name for row in rows],
            root=None if self.stores is None else location(self.stores),
        )
        try:
            # A task is a whole shard: two writers of one shard would lose each other's chunks.
            starts = range(0, len(rows), SHARD_MICROGRAPHS)
            tasks = [(start, rows[start : start + SHARD_MICROGRAPHS]) for start in starts]
            afforded = workers.affordable(at_once, self.geometry.bytes_of_shard)
            written: dict[str, StoreRow] = {}
            for shard in workers.in_order(partial(self._write_shard, writer), tasks, at_once=afforded):
                before = len(written)
                written |= {row.name: row for row in shard}
                _say_progress(self.stage, before, len(written), len(rows))
            writer.finish()
            if self._later_attempt_is_done(writer):
                say(self.stage, f"a later attempt has written {self.output}: this one is given up")
                writer.discard()
                return
            write_store_index(self.output, table, written)
        except BaseException:
            writer.discard()
            raise
        writer.remove_superseded()

    def _later_attempt_is_done(self, writer: StoreWriter) -> bool:
        """Whether the index names the store of an attempt that began after this one."""
        if not self.output.is_file():
            return False
        named = {row.store for row in read_index(self.output, StoreRow) if row.store}
        return any(writer.began_before(find_store(self.output.parent, store)) for store in named)

    def _write_shard(self, writer: StoreWriter, task: tuple[int, Sequence[Source]]) -> list[StoreRow]:
        start, rows = task
        images = np.zeros((len(rows), *self.geometry.shape), dtype=np.float32)
        results = []
        for offset, row in enumerate(rows):
            try:
                images[offset] = self.make(row)
            except BadInputError as error:
                say(self.stage, f"left out {row.name}: {error}")
                results.append(StoreRow(row.name, FAILED, str(error)))
            else:
                results.append(self._store_row(row.name, writer.name, start + offset, images[offset]))
        writer.write(start, images)
        return results

    def _store_row(self, name: str, store: str, position: int, image: NDArray[np.float32]) -> StoreRow:
        pixel_y, pixel_x = self.geometry.pixel_size_angstrom
        return StoreRow(
            name=name,
            status=OK,
            store=store,
            position=position,
            height=image.shape[0],
            width=image.shape[1],
            unbinned_height=self.geometry.unbinned_shape[0],
            unbinned_width=self.geometry.unbinned_shape[1],
            pixel_size_angstrom=(pixel_y + pixel_x) / 2,
            mean=float(image.mean(dtype=np.float64)),
            standard_deviation=float(image.std(dtype=np.float64)),
            checksum=checksum(image),
        )


def write_store_index(
    output: Path, table: Sequence[MicrographRow | StoreRow], written: dict[str, StoreRow]
) -> None:
    """Write the index of a stage: what was written, and what earlier stages had left out."""
    rows = [written.get(row.name) or StoreRow(row.name, row.status, row.reason) for row in table]
    write_failures(output.parent, rows)
    write_index(output, rows, StoreRow)


def _say_progress(stage: str, before: int, done: int, total: int) -> None:
    """Say how many are done, where that crosses a tenth of the batch or is all of it."""
    tenth = max(1, total // 10)
    if done // tenth > before // tenth or done == total:
        say(stage, f"{done}/{total} micrographs")
