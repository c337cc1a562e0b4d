"""``emflow train-denoiser``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emflow.cli.learning import Learning

DEFAULT = Learning()


def train_denoiser(
    *,
    output: Path,
    halves: Path | None = None,
    micrographs: Path | None = None,
    steps: int = 2500,
    learning: Annotated[Learning, Parameter(name="*")] = DEFAULT,
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
    scenes: int = 60,
) -> None:
    """Train a denoiser on simulated micrographs, or on your own, and score it on what was held apart.

    Your own need no truth: with --halves the sum of odd frames is the target of that of even frames and the
    other way round. Without halves, --micrographs hides single pixels; where neighbouring pixels share noise
    (dose-weighted, interpolated or filtered sums) that learns the noise, and the shipped denoiser is better:
    the command says so when it is. Either starts best from --init-from denoiser.

    Parameters
    ----------
    output
        Folder for the model (model.safetensors, card.json), metrics.json, curves and the checkpoint.
    halves
        Folder with NAME_even.mrc and NAME_odd.mrc, or a STAR with rlnMicrographNameEven and
        rlnMicrographNameOdd.
    micrographs
        Folder of single micrographs, or a STAR with rlnMicrographName.
    steps
        Steps of the optimiser.
    learning
        How it learns.
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

    torch.set_num_threads(threads)
    config = learning.config(steps=steps, seed=seed)
    architecture = {"name": "UNet", "in_channels": 1, "out_channels": 1, "channels": list(channels)}
    learn = partial(
        train,
        task=DENOISE,
        architecture=architecture,
        config=config,
        output=output,
        device=device,
        init_from=init_from,
        resume=resume,
        restart=restart,
    )
    own = None
    if halves is not None or micrographs is not None:
        own = own_material(halves, micrographs, config)
        network, made = learn(material=own.material, loss=own.loss, sources=own.data)
    else:
        library, sources = library_of(models, allow_kept_apart=allow_kept_apart)
        drawn_from, told = read_ranges(ranges, denoiser.RANGES)
        samples = denoiser.DenoiserSamples(library, drawn_from)
        with simulated(samples, denoiser.denoiser_batch, config, workers=workers) as material:
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
    save_model(output, network, replace(card, scores=scores, notes=notes))
    write_metrics(output, scores)
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
