"""``emflow train-denoiser``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emflow.cli.learning import Learning

DEFAULT = Learning()


def train_denoiser(
    *,
    output: Path,
    steps: int = 2500,
    learning: Annotated[Learning, Parameter(name="*")] = DEFAULT,
    seed: int = 17,
    channels: tuple[int, ...] = (16, 32, 64, 128),
    threads: int = 1,
    workers: int = 1,
    device: str = "auto",
    models: Path | None = None,
    init_from: Path | None = None,
    resume: bool = False,
    scenes: int = 60,
) -> None:
    """Train a denoiser on simulated micrographs and score it on shapes held apart.

    Parameters
    ----------
    output
        Folder for the model (model.safetensors, card.json), metrics.json, curves and the checkpoint.
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
    init_from
        Model folder to start from instead of random weights.
    resume
        Go on from the checkpoint in the output folder, if there is one.
    scenes
        Simulated micrographs for the scores.
    """
    from dataclasses import replace

    import torch

    from emflow.cli.progress import say
    from emflow.cli.training import library_of, simulated, train, write_metrics
    from emflow.io.model import save_model
    from emflow.model_card import DENOISE
    from emflow.simulation import ParticleLibrary
    from emflow.training import denoiser

    torch.set_num_threads(threads)
    config = learning.config(steps=steps, seed=seed)
    architecture = {"name": "UNet", "in_channels": 1, "out_channels": 1, "channels": list(channels)}
    library, sources = library_of(models)
    samples = denoiser.DenoiserSamples(library)
    with simulated(samples, denoiser.denoiser_batch, config, workers=workers) as material:
        network, made = train(
            task=DENOISE,
            architecture=architecture,
            config=config,
            material=material,
            loss=denoiser.denoiser_loss,
            output=output,
            device=device,
            init_from=init_from,
            resume=resume,
        )
    say(DENOISE, "scoring")
    apart = ParticleLibrary("held_apart", procedural=120)
    card = replace(denoiser.new_card(architecture), training={**made, **sources})
    scores = denoiser.evaluate_denoiser(
        network, card, denoiser.held_apart_pairs(apart, denoiser.RANGES, count=scenes, seed=seed + 1)
    )
    save_model(output, network, replace(card, scores=scores, notes=denoiser.NOTES))
    write_metrics(output, scores)
    say(DENOISE, f"gain over the best Gaussian {scores['gain_over_best_gaussian_decibel']} dB")
