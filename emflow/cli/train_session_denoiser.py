"""Train the denoiser of tomograms further on a session's own halves: each is the other's target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from emflow.cli.training_options import ParentModel, Seed, TrainingRun
from emflow.errors import BadInputError, SettingError

if TYPE_CHECKING:
    from emflow.cli.tomograms import StoredTomogram
    from emflow.training.tomogram_halves import CubePair

STAGE = "train_session_denoiser"
CROP_VOXELS = 56
BATCH = 4
LEARNING_RATE = 5e-4  # less than random weights begin with
PATIENCE = 4
# Cubes of all tomograms together, of either half: they stay in memory.
CUBES, CUBES_APART, VALIDATION_BATCHES = 240, 32, 8
NOTES = (
    "Trained further on the halves of one session's tomograms (Noise2Noise): for them. For eyes and for "
    "segmentation, never for averaging."
)


def train_session_denoiser(
    *,
    tomograms: Annotated[list[Path], Parameter(consume_multiple=True)],
    output: Path,
    model: ParentModel,
    steps: int = 400,
    seed: Seed = 17,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
) -> None:
    """Write a model folder that denoises a session's tomograms, or the model as it came if that does better.

    A fifth of each tomogram is kept apart to judge by. An interrupted training goes on from its checkpoint in
    the same folder, unless settings or tomograms are others now.

    Parameters
    ----------
    tomograms
        Each one's tomogram.tsv.
    output
        The card.json to write; weights, metrics.json, curves and checkpoint lie beside it.
    steps
        Steps of the optimiser, at most.
    device
        auto, cpu or cuda.
    threads
        Of the CPU.
    """
    from dataclasses import replace
    from functools import partial

    import numpy as np
    import torch

    from emflow.cli.progress import say
    from emflow.cli.training import Material, train, write_metrics
    from emflow.io.curves import write_curves
    from emflow.io.model import load_model, save_model
    from emflow.model_card import DENOISE_TOMOGRAM
    from emflow.resources import model_folder
    from emflow.training.batches import Batch, mean_loss
    from emflow.training.settings import TrainingConfig
    from emflow.training.tomogram_halves import crop_side, halves_batch, halves_loss

    torch.set_num_threads(threads)
    folder = model_folder(model)
    parent, card = load_model(folder, DENOISE_TOMOGRAM)
    usable = _with_halves(tomograms, card.pixel_size_angstrom, parent.stride)
    if not usable:
        say(STAGE, f"no tomogram can be learned from: {model} stays as it is")
        save_model(output.parent, parent, card)
        write_metrics(output.parent, {"tomograms": 0})
        write_curves(output.parent, [])
        return
    crop = min(crop_side(one.shape, CROP_VOXELS, parent.stride) for one in usable)
    learn = _cubes(usable, crop, CUBES, seed, apart=False)
    kept = _cubes(usable, crop, CUBES_APART, seed, apart=True)
    say(STAGE, f"{len(learn)} cubes of {len(usable)} tomograms to learn from, {len(kept)} to judge by")
    config = TrainingConfig(
        steps=steps,
        batch=BATCH,
        crop_pixels=crop,
        learning_rate=LEARNING_RATE,
        average_decay=0.99,
        seed=seed,
        patience=PATIENCE,
    )

    def batch_of_step(step: int) -> Batch:
        return halves_batch(learn, crop, BATCH, np.random.default_rng((seed, step, 21)))

    validation = [
        halves_batch(kept, crop, BATCH, np.random.default_rng((seed, number, 22)))
        for number in range(VALIDATION_BATCHES)
    ]
    network, made = train(
        task=DENOISE_TOMOGRAM,
        architecture=card.architecture,
        config=config,
        material=Material(batch_of_step, validation),
        loss=halves_loss,
        run=TrainingRun(
            output=output.parent, threads=threads, device=device, init_from=folder, resume=True, restart=True
        ),
        sources={
            "data": f"even and odd halves of {len(usable)} tomograms (Noise2Noise)",
            "tomograms": {one.row.name: one.row.checksum for one in usable},
            "parent": card.weights_sha256,
        },
    )
    judge = partial(mean_loss, batches=validation, loss_of=halves_loss)
    before, after = judge(parent), judge(network)
    scores = {
        "tomograms": len(usable),
        "loss": round(after, 5),
        "loss_as_it_came": round(before, 5),
    }
    say(STAGE, f"against the other half, on what was kept apart: {before:.5f} before, {after:.5f} after")
    made["kept"] = "the model as it came" if after >= before else "what was trained"
    if after >= before:
        say(STAGE, f"no gain: {model} stays as it is")
        network, notes = parent, f"{card.notes} Tried on a session's own halves, without gain: as it came."
    else:
        notes = NOTES
    save_model(output.parent, network, replace(card, training=made, scores=scores, notes=notes))
    write_metrics(output.parent, scores)


def _with_halves(tables: list[Path], pixel_size_angstrom: float | None, stride: int) -> list[StoredTomogram]:
    """Return the tomograms that can be learned from; the others are named with their reason.

    Raises
    ------
    SettingError
        When none of those that were not left out has halves.
    """
    from emflow.cli.progress import say
    from emflow.cli.tomograms import StoredTomogram, check_pixel_size, failed_reason, read_volume_row
    from emflow.training.tomogram_halves import crop_side

    usable, without = [], []
    for table in tables:
        row = read_volume_row(table)
        reason = failed_reason(row)
        if reason is None:
            stored = StoredTomogram.open(row, table.parent)
            try:
                check_pixel_size(row, pixel_size_angstrom)
                crop_side(stored.shape, CROP_VOXELS, stride)
                if {"even", "odd"} <= set(stored.channels):
                    usable.append(stored)
                    continue
                without.append(row.name)
                reason = "it has no even and odd halves"
            except BadInputError as error:
                reason = str(error)
        say(STAGE, f"{row.name} is not learned from: {reason}")
    if without and not usable:
        raise SettingError(
            f"denoise_tomogram.train: {', '.join(without)}: no even and odd halves to learn from; name them "
            "in sessions.tsv (even_tomograms, odd_tomograms), or set it to false"
        )
    return usable


def _cubes(
    tomograms: list[StoredTomogram], crop: int, count: int, seed: int, *, apart: bool
) -> list[CubePair]:
    """Read cubes of both halves of each tomogram, standardised as they are when they are denoised."""
    import numpy as np

    from emflow.segmentation import standardise
    from emflow.training.tomogram_halves import cube_places

    cubes = []
    each = -(-count // len(tomograms))
    for number, one in enumerate(tomograms):
        standards = {half: one.standardisation(half) for half in ("even", "odd")}
        random = np.random.default_rng((seed, number, int(apart), 20))
        for part in cube_places(one.shape, crop, each, random, apart=apart):
            even, odd = (
                standardise(one.read_part(half, part), *standards[half]).astype(np.float16)
                for half in ("even", "odd")
            )
            cubes.append((even, odd))
    return cubes
