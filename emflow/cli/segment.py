"""Say the class of every voxel of a tomogram, slice by slice."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from emflow.cli.progress import say
from emflow.cli.tomograms import StoredTomogram, check_pixel_size, failed_reason, read_volume_row
from emflow.cli.volume_stage import Slab, made_ahead, write_failed_volume, write_volume
from emflow.errors import BadInputError
from emflow.io.gpus import take_device
from emflow.io.mrc_volumes import mrc_volume
from emflow.io.scratch import scratch_array
from emflow.io.volumes import SLAB_SLICES
from emflow.resources import model_folder
from emflow.tomogram_classes import CLASSES, LabelClass

STAGE = "segment"


def segment(
    *,
    tomogram: Path,
    output: Path,
    model: str,
    axes: Literal["z", "zyx"] = "zyx",
    looks: Literal[1, 2] = 2,
    mrc: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
    stores: str | None = None,
) -> None:
    """Write the probability of each class and the likeliest one, and their table.

    Parameters
    ----------
    tomogram
        The tomogram.tsv or denoised.tsv.
    output
        The segmented.tsv to write; the store, with its labels, lies beside it.
    model
        Shipped model's name, or the path of a model folder.
    axes
        zyx for the mean over slices along z, y and x; z for slices along z alone, in a third of the time.
    looks
        2 to look at each slice once more, mirrored, and to take the mean; 1 in half of the time.
    mrc
        Whether to write the labels as MRC too, beside their table.
    device
        auto, cpu or cuda.
    threads
        Of the CPU.
    stores
        Folder or URL (s3://...) below which the store lies, instead of beside its index.
    """
    import torch

    from emflow.io.model import load_model
    from emflow.model_card import SEGMENT
    from emflow.segmentation import UPRIGHT_SLICES, look_upright, segment_slabs
    from emflow.segmentation_batches import sums_on_gpu

    torch.set_num_threads(threads)
    row = read_volume_row(tomogram)
    if (reason := failed_reason(row)) is not None:
        write_failed_volume(STAGE, output, row.name, reason)
        return
    network, card = load_model(model_folder(model), SEGMENT)
    try:
        check_pixel_size(row, card.pixel_size_angstrom)
    except BadInputError as error:
        write_failed_volume(STAGE, output, row.name, str(error))
        return
    chosen = take_device(device)
    network = network.to(chosen)
    stored = StoredTomogram.open(row, tomogram.parent)
    channel = stored.channels[0]
    classes = _classes(card.classes or ())
    say(STAGE, f"{row.name}: model {model} on {chosen}, from the {channel} tomogram")
    centre, spread = stored.standardisation(channel)
    target = output.parent / f"{row.name}_labels.mrc"
    if not mrc:
        target.unlink(missing_ok=True)
    copy = (
        mrc_volume(target, stored.shape, row.pixel_size_angstrom or 0.0, "int8") if mrc else nullcontext(None)
    )
    read = partial(stored.read_part, channel)
    scores_shape = (len(classes), *stored.shape)
    on_gpu = sums_on_gpu(scores_shape, chosen) if axes == "zyx" else None
    upright = (
        scratch_array(scores_shape, UPRIGHT_SLICES)
        if axes == "zyx" and on_gpu is None
        else nullcontext(on_gpu)
    )
    with copy as array, upright as sums:

        def slabs() -> Iterator[Slab]:
            if sums is not None:
                say(STAGE, f"{row.name}: slices along y and x")
                look_upright(
                    network,
                    read,
                    stored.shape,
                    sums,
                    centre=centre,
                    spread=spread,
                    looks=looks,
                    device=chosen,
                )
            for first, scores, labels in segment_slabs(
                network,
                read,
                stored.shape,
                SLAB_SLICES,
                centre=centre,
                spread=spread,
                upright=sums,
                looks=looks,
                device=chosen,
            ):
                if array is not None:
                    array[first : first + len(labels)] = labels
                yield first, scores, labels

        write_volume(
            STAGE,
            output,
            replace(row, halves=""),
            made_ahead(slabs(), chosen),
            channels=[each.name for each in classes],
            dtype="uint8",
            labels=classes,
            stores=stores,
        )


def _classes(names: tuple[str, ...]) -> list[LabelClass]:
    """Return a model's classes with the colours of those that emflow knows; others are grey."""
    known = {each.name: each.color for each in CLASSES}
    return [LabelClass(value, name, known.get(name, (160, 160, 160))) for value, name in enumerate(names)]
