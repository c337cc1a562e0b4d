"""Denoise the stored images of one batch, for eyes and for picking; particles come from the raw ones."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.cli.image_batch import Geometry, ImageBatch, write_store_index
from emflow.cli.progress import say
from emflow.cli.workers import THREADS, Workers
from emflow.fourier import resized_shape
from emflow.io.gpus import take_device
from emflow.io.index import StoreRow, accepted, read_index
from emflow.io.locations import find_store
from emflow.io.store import read_in_turn
from emflow.resources import model_folder


def denoise(
    *,
    tiles: Path,
    output: Path,
    model: str,
    device: str = "auto",
    threads: int = 1,
    dask: str = THREADS,
    memory_mb: int | None = None,
    stores: str | None = None,
) -> None:
    """Write the denoised images of a batch and their table.

    Parameters
    ----------
    tiles
        The batch's tiles.tsv.
    output
        The denoised.tsv to write; the store lies beside it.
    model
        Shipped model's name, or the path of a model folder.
    device
        auto, cpu or cuda.
    threads
        CPU threads of the network, or processes.
    dask
        threads, processes, or slurm:N for N jobs of their own: see docs/cluster.md.
    memory_mb
        What processes share, or each of the jobs asks for; of threads no more work at once than it holds.
    stores
        Folder or URL (s3://...) below which the store lies, instead of beside its index.
    """
    import torch

    from emflow.denoising import denoise_micrograph
    from emflow.io.model import load_model

    workers = Workers(dask, threads, memory_mb)
    table = read_index(tiles, StoreRow)
    good = accepted(table)
    if not good:
        write_store_index(output, table, {})
        return
    chosen = take_device(device)
    network, card = load_model(model_folder(model), "denoise")
    network = network.to(chosen)
    say("denoise", f"model {model} on {chosen}")
    stored = _geometry(good[0])
    pixel_size = stored.pixel_size_angstrom[0]
    # Coarser data are denoised at their own pixel size: there is nothing finer to be had.
    working = max(card.pixel_size_angstrom or pixel_size, pixel_size)
    shape = resized_shape(stored.shape, pixel_size, working)
    geometry = Geometry(shape, stored.unbinned_shape, stored.unbinned_pixel_size_angstrom)

    # Two shards at a time: one reads or writes while the other computes. Threads that all want all cores are
    # in each other's way, so each shard has half of them, in small batches too: last digits hang on it.
    # A GPU computes faster than one thread reads, resizes and writes: there each thread has a shard.
    at_once = 2 if chosen.type == "cpu" else max(2, threads)
    threads_of_shard = workers.threads_of_task(at_once)

    def make(row: StoreRow) -> NDArray[np.float32]:
        torch.set_num_threads(threads_of_shard)  # this may be a process of its own
        image = read_in_turn(find_store(tiles.parent, row.store), row.position or 0)
        return denoise_micrograph(
            image, image_pixel_size_angstrom=pixel_size, network=network, card=card, device=chosen
        )

    ImageBatch("denoise", output, geometry, make, stores).write(table, workers, at_once=at_once)


def _geometry(row: StoreRow) -> Geometry:
    """Return the geometry of a batch's stored images from any of them."""
    if row.height is None or row.width is None or row.unbinned_height is None or row.unbinned_width is None:
        raise ValueError(f"{row.name}: a stored image has a size")
    scale_y, scale_x = row.unbinned_height / row.height, row.unbinned_width / row.width
    return Geometry(
        shape=(row.height, row.width),
        unbinned_shape=(row.unbinned_height, row.unbinned_width),
        unbinned_pixel_size_angstrom=(row.pixel_size_angstrom or 0.0) / ((scale_y + scale_x) / 2),
    )
