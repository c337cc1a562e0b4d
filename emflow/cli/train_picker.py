"""``emflow train-picker``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emflow.cli.learning import Learning
from emflow.config.training import LossName

DEFAULT = Learning()


def train_picker(
    *,
    output: Path,
    steps: int = 4000,
    learning: Annotated[Learning, Parameter(name="*")] = DEFAULT,
    heat_loss: LossName = "weighted_mse",
    junk_loss: LossName = "dice_ce",
    seed: int = 17,
    channels: tuple[int, ...] = (16, 32, 64, 128),
    threads: int = 1,
    workers: int = 1,
    device: str = "auto",
    models: Path | None = None,
    allow_kept_apart: bool = False,
    ranges: str | None = None,
    init_from: Path | None = None,
    resume: bool = False,
    restart: bool = False,
    scenes: int = 160,
) -> None:
    """Train a picker on simulated micrographs, calibrate it, and score it on shapes held apart.

    Parameters
    ----------
    output
        Folder for the model (model.safetensors, card.json), metrics.json, curves and the checkpoint.
    steps
        Steps of the optimiser.
    learning
        How it learns.
    heat_loss, junk_loss
        Of the heatmap of particles, and of the mask of contaminants.
    seed
        Of everything random.
    channels
        Width of the network at its levels.
    threads
        CPU threads of the training itself.
    workers
        Processes besides that simulate.
    device
        auto, cpu or cuda.
    models
        Folder of atomic models (mmCIF or PDB files) to simulate besides the procedural shapes.
    allow_kept_apart
        Learn also from structures that models are judged by: for a model of your own.
    ranges
        What the simulation is to draw otherwise: a YAML file, or YAML such as '{coverage: [0.1, 0.2]}'; keys
        of emflow.simulation.SimulationRanges.
    init_from
        Model folder, or a shipped model's name, to start from instead of random weights.
    resume
        Go on from the checkpoint in the output folder, if there is one.
    restart
        With --resume, start from nothing where that checkpoint was made with other settings or data.
    scenes
        Simulated micrographs for calibration, and as many for the scores and for the ranges of the training.
    """
    from dataclasses import replace
    from functools import partial

    import torch

    from emflow.cli.progress import say
    from emflow.cli.training import library_of, simulated, train, write_metrics
    from emflow.io.curves import write_reliability
    from emflow.io.model import save_model
    from emflow.io.ranges import read_ranges
    from emflow.model_card import PICK
    from emflow.simulation import ParticleLibrary
    from emflow.training import picker

    torch.set_num_threads(threads)
    config = learning.config(steps=steps, seed=seed)
    architecture = {"name": "UNet", "in_channels": 1, "out_channels": 2, "channels": list(channels)}
    library, sources = library_of(models, allow_kept_apart=allow_kept_apart)
    drawn_from, told = read_ranges(ranges, picker.RANGES)
    samples = picker.PickerSamples(library, drawn_from)
    with simulated(samples, picker.picker_batch, config, workers=workers) as material:
        network, made = train(
            task=PICK,
            architecture=architecture,
            config=config,
            material=material,
            loss=partial(picker.picker_loss, heat_loss=heat_loss, junk_loss=junk_loss),
            output=output,
            device=device,
            init_from=init_from,
            resume=resume,
            restart=restart,
            sources={**sources, **told, "losses": {"heat": heat_loss, "junk": junk_loss}},
        )
    say(PICK, "calibrating and scoring")
    card = replace(
        picker.new_card(architecture),
        training=made,
        training_ranges=picker.training_ranges(samples, count=scenes, seed=seed),
    )
    apart = [ParticleLibrary("held_apart", procedural=60, first=first) for first in (0, 60)]
    card = picker.calibrated(
        network,
        card,
        picker.held_apart_scenes(apart[0], picker.RANGES, count=scenes, seed=seed + 1),
    )
    scores = picker.evaluate_picker(
        network, card, picker.held_apart_scenes(apart[1], picker.RANGES, count=scenes, seed=seed + 2)
    )
    save_model(output, network, replace(card, scores=scores, notes=picker.NOTES))
    write_metrics(output, scores)
    write_reliability(output, scores["reliability"], card.threshold)
    say(
        PICK,
        f"average precision {scores['strict_average_precision']}, best F1 {scores['strict_best_f1']} "
        f"(Laplacian of Gaussian: {scores['log_strict_best_f1']})",
    )
