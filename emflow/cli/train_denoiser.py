"""``emflow train-denoiser``."""

from pathlib import Path

from emflow.cli.training_options import Channels, Learning, MicrographSimulation, Seed, Steps, TrainingRun

LEARNING = Learning()
SIMULATION = MicrographSimulation()


def train_denoiser(
    *,
    run: TrainingRun,
    halves: Path | None = None,
    micrographs: Path | None = None,
    steps: Steps = 7000,
    learning: Learning = LEARNING,
    seed: Seed = 17,
    channels: Channels = (16, 32, 64, 128),
    simulation: MicrographSimulation = SIMULATION,
    scenes: int = 60,
) -> None:
    """Train a denoiser on simulated micrographs, or on your own, and score it on what was held apart.

    Your own need no truth: with --halves the sum of odd frames is the target of that of even frames and the
    other way round. Without halves, --micrographs hides single pixels; where neighbouring pixels share noise
    (dose-weighted, interpolated or filtered sums) that learns the noise, and the shipped denoiser is better:
    the command says so when it is. Either starts best from --init-from denoiser.

    Parameters
    ----------
    run
        Where it runs, what it starts from, and where it leaves the model.
    halves
        Folder with NAME_even.mrc and NAME_odd.mrc, or a STAR with rlnMicrographNameEven and
        rlnMicrographNameOdd.
    micrographs
        Folder of single micrographs, or a STAR with rlnMicrographName.
    learning
        How it learns.
    simulation
        What it learns from without micrographs of your own.
    scenes
        Simulated micrographs for the scores.
    """
    from dataclasses import replace
    from functools import partial

    import torch

    from emflow.cli.own_micrographs import own_material
    from emflow.cli.progress import say
    from emflow.cli.training import library_of, simulated, train, write_metrics
    from emflow.io.model import load_model, save_model, shipped_model
    from emflow.io.ranges import read_ranges
    from emflow.model_card import DENOISE
    from emflow.simulation import ParticleLibrary
    from emflow.training import denoiser

    torch.set_num_threads(run.threads)
    config = learning.config(steps=steps, seed=seed)
    architecture = {"name": "UNet", "in_channels": 1, "out_channels": 1, "channels": list(channels)}
    learn = partial(train, task=DENOISE, architecture=architecture, config=config, run=run)
    own = None
    if halves is not None or micrographs is not None:
        own = own_material(halves, micrographs, config)
        network, made = learn(material=own.material, loss=own.loss, sources=own.data)
    else:
        library, sources = library_of(simulation)
        drawn_from, told = read_ranges(simulation.ranges, denoiser.RANGES)
        samples = denoiser.DenoiserSamples(library, drawn_from)
        with simulated(samples, denoiser.denoiser_batch, config, workers=simulation.workers) as material:
            network, made = learn(material=material, loss=denoiser.denoiser_loss, sources={**sources, **told})
    say(DENOISE, "scoring")
    apart = ParticleLibrary("held_apart", procedural=120)
    card = replace(denoiser.new_card(architecture), training=made)
    scores = denoiser.evaluate_denoiser(
        network, card, denoiser.held_apart_pairs(apart, denoiser.RANGES, count=scenes, seed=seed + 1)
    )
    notes = denoiser.NOTES
    if own is not None:
        shipped, _ = load_model(shipped_model("denoiser"), DENOISE)
        scores = {"own_micrographs": own.scores(network, shipped, card), "simulated": scores}
        notes = OWN_NOTES
    save_model(run.output, network, replace(card, scores=scores, notes=notes))
    write_metrics(run.output, scores)
    if own is None:
        say(DENOISE, f"gain over the best Gaussian {scores['gain_over_best_gaussian_decibel']} dB")
        return
    losses = scores["own_micrographs"]
    say(DENOISE, f"loss {losses['loss']}, of the shipped denoiser {losses['loss_of_shipped_denoiser']}")
    if losses["loss"] >= losses["loss_of_shipped_denoiser"]:
        say(DENOISE, "the shipped denoiser does as well or better on the micrographs kept apart: use it")


OWN_NOTES = (
    "Works at 5 A a pixel; protein dark. Trained on one user's micrographs, without truth: for micrographs "
    "like them. For eyes and for picking: particles are extracted from the micrograph as recorded."
)
