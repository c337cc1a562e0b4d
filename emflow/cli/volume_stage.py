"""What the stages that make a tomogram share: slabs into a store, then the table that names it."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.io.index import FAILED, VolumeRow, read_index, write_index
from emflow.io.locations import find_store, location
from emflow.io.volumes import VolumeWriter
from emflow.tomogram_classes import LabelClass

if TYPE_CHECKING:
    import torch

Slab = tuple[int, NDArray[np.generic], NDArray[np.uint8] | None]


def made_ahead(slabs: Iterator[Slab], device: "torch.device") -> Iterator[Slab]:
    """Yield slabs, on a GPU the next one being made while the caller writes this one.

    On a CPU making and writing would be in each other's way, and two slabs take more memory than one.
    """
    if device.type == "cpu":
        yield from slabs
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, slabs, None)
        while (slab := waiting.result()) is not None:
            waiting = pool.submit(next, slabs, None)
            yield slab


def write_volume(
    stage: str,
    output: Path,
    row: VolumeRow,
    slabs: Iterable[Slab],
    *,
    channels: Sequence[str],
    dtype: str = "float16",
    labels: Sequence[LabelClass] | None = None,
    stores: str | None = None,
) -> None:
    """Write a tomogram's slabs as they come, then its table; a failed attempt leaves neither.

    Parameters
    ----------
    stage
        The command, for its progress.
    output
        The table to write, ``<stage>.tsv``.
    row
        What is known of the tomogram; its store, channels, statistics (of the first channel) and checksum
        are filled in.
    slabs
        (first slice, voxels (channels, slices, y, x), labels (slices, y, x) or None), in order, each of
        `emflow.io.volumes.SLAB_SLICES` slices.
    channels, dtype, labels
        See `emflow.io.volumes.VolumeWriter`.
    stores
        Folder or URL below which the store lies, instead of beside its table.
    """
    shape = (row.depth or 0, row.height or 0, row.width or 0)
    writer = VolumeWriter(
        output,
        channels=channels,
        shape=shape,
        pixel_size_angstrom=row.pixel_size_angstrom or 0.0,
        dtype=dtype,
        labels=labels,
        root=None if stores is None else location(stores),
    )
    try:
        digest, total, squares, count = hashlib.sha256(), 0.0, 0.0, 0
        for first, slab, slab_labels in slabs:
            writer.write(first, slab, slab_labels)
            whole = np.rint(slab) if dtype == "uint8" and slab.dtype != np.uint8 else slab
            stored = whole.astype("u1" if dtype == "uint8" else "<f2", copy=False)
            digest.update(np.ascontiguousarray(stored).data)
            if slab_labels is not None:
                digest.update(np.ascontiguousarray(slab_labels).data)
            values = slab[0].astype(np.float64)
            total, squares, count = (
                total + values.sum(),
                squares + np.square(values).sum(),
                count + values.size,
            )
            say(stage, f"{row.name}: {first + slab.shape[1]}/{shape[0]} slices")
        writer.finish()
        if _later_attempt_is_done(output, writer):
            say(stage, f"a later attempt has written {output}: this one is given up")
            writer.discard()
            return
        mean = total / max(1, count)
        written = replace(
            row,
            store=writer.name,
            channels=",".join(channels),
            mean=float(mean),
            standard_deviation=float(max(0.0, squares / max(1, count) - mean**2) ** 0.5),
            checksum=digest.hexdigest(),
        )
        write_index(output, [written], VolumeRow)
    except BaseException:
        writer.discard()
        raise
    writer.remove_superseded()


def _later_attempt_is_done(output: Path, writer: VolumeWriter) -> bool:
    if not output.is_file():
        return False
    named = {row.store for row in read_index(output, VolumeRow) if row.store}
    return any(writer.began_before(find_store(output.parent, store)) for store in named)


def write_failed_volume(stage: str, output: Path, name: str, reason: str) -> None:
    """Write the table of a tomogram that is left out, so that later stages pass its reason on."""
    say(stage, f"left out {name}: {reason}")
    write_index(output, [VolumeRow(name, FAILED, reason)], VolumeRow)
