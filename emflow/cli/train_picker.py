"""``emflow train-picker``."""

from emflow.cli.training_options import Channels, Learning, MicrographSimulation, Seed, Steps, TrainingRun
from emflow.config.training import LossName

LEARNING = Learning()
SIMULATION = MicrographSimulation()


def train_picker(
    *,
    run: TrainingRun,
    steps: Steps = 8000,
    learning: Learning = LEARNING,
    heat_loss: LossName = "weighted_mse",
    junk_loss: LossName = "dice_ce",
    seed: Seed = 17,
    channels: Channels = (16, 32, 64, 128),
    simulation: MicrographSimulation = SIMULATION,
    scenes: int = 160,
) -> None:
    """Train a picker on simulated micrographs, calibrate it, and score it on shapes held apart.

    Parameters
    ----------
    run
        Where it runs, what it starts from, and where it leaves the model.
    learning
        How it learns.
    simulation
        What it learns from.
    heat_loss
        Loss of the heatmap of particles.
    junk_loss
        Loss of the mask of contaminants.
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

    torch.set_num_threads(run.threads)
    config = learning.config(steps=steps, seed=seed)
    architecture = {"name": "UNet", "in_channels": 1, "out_channels": 2, "channels": list(channels)}
    library, sources = library_of(simulation)
    drawn_from, told = read_ranges(simulation.ranges, picker.RANGES)
    samples = picker.PickerSamples(library, drawn_from)
    with simulated(samples, picker.picker_batch, config, workers=simulation.workers) as material:
        network, made = train(
            task=PICK,
            architecture=architecture,
            config=config,
            material=material,
            loss=partial(picker.picker_loss, heat_loss=heat_loss, junk_loss=junk_loss),
            run=run,
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
    save_model(run.output, network, replace(card, scores=scores, notes=picker.NOTES))
    write_metrics(run.output, scores)
    write_reliability(run.output, scores["reliability"], card.threshold)
    say(
        PICK,
        f"average precision {scores['strict_average_precision']}, best F1 {scores['strict_best_f1']} "
        f"(Laplacian of Gaussian: {scores['log_strict_best_f1']})",
    )
