"""Denoise a tomogram, for eyes and for segmentation; particles come from the tilts."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from emflow.cli.progress import say
from emflow.cli.tomograms import StoredTomogram, check_pixel_size, failed_reason, read_volume_row
from emflow.cli.volume_stage import Slab, made_ahead, write_failed_volume, write_volume
from emflow.errors import BadInputError
from emflow.io.gpus import take_device
from emflow.io.volumes import SLAB_SLICES
from emflow.resources import model_folder

STAGE = "denoise_tomogram"


def denoise_tomogram(
    *,
    tomogram: Path,
    output: Path,
    model: str,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
    stores: str | None = None,
) -> None:
    """Write a denoised tomogram and its table.

    Parameters
    ----------
    tomogram
        The tomogram.tsv.
    output
        The denoised.tsv to write; the store lies beside it.
    model
        Shipped model's name, or the path of a model folder.
    device
        auto, cpu or cuda.
    threads
        Of the CPU.
    stores
        Folder or URL (s3://...) below which the store lies, instead of beside its index.
    """
    import torch

    from emflow.io.model import load_model
    from emflow.model_card import DENOISE_TOMOGRAM
    from emflow.volume_denoising import denoise_slabs

    torch.set_num_threads(threads)
    row = read_volume_row(tomogram)
    if (reason := failed_reason(row)) is not None:
        write_failed_volume(STAGE, output, row.name, reason)
        return
    network, card = load_model(model_folder(model), DENOISE_TOMOGRAM)
    try:
        check_pixel_size(row, card.pixel_size_angstrom)
    except BadInputError as error:
        write_failed_volume(STAGE, output, row.name, str(error))
        return
    chosen = take_device(device)
    network = network.to(chosen)
    stored = StoredTomogram.open(row, tomogram.parent)
    halves = [name for name in ("even", "odd") if name in stored.channels]
    channels = halves if len(halves) == 2 else [stored.channels[0]]
    say(STAGE, f"{row.name}: model {model} on {chosen}, from {' and '.join(channels)}")

    def slabs() -> Iterator[Slab]:
        standards = [stored.standardisation(channel) for channel in channels]
        reads = [partial(stored.read, channel) for channel in channels]
        for first, slab in denoise_slabs(
            network, reads, stored.shape, SLAB_SLICES, standards=standards, device=chosen
        ):
            yield first, slab[None], None

    write_volume(
        STAGE,
        output,
        replace(row, halves=""),
        made_ahead(slabs(), chosen),
        channels=["denoised"],
        stores=stores,
    )
