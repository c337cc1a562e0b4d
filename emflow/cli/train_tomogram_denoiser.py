"""``emflow train-tomogram-denoiser``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emflow.cli.learning import Learning

DEFAULT = Learning(batch=4)


def train_tomogram_denoiser(
    *,
    output: Path,
    steps: int = 1500,
    learning: Annotated[Learning, Parameter(name="*")] = DEFAULT,
    seed: int = 17,
    channels: tuple[int, ...] = (20, 40),
    crop_voxels: int = 56,
    threads: int = 1,
    workers: int = 1,
    device: str = "auto",
    models: Path | None = None,
    allow_kept_apart: bool = False,
    keep: Path | None = None,
    crops: float = 300.0,
    init_from: Path | None = None,
    resume: bool = False,
    restart: bool = False,
    tomograms: int = 4,
) -> None:
    """Train a denoiser of tomograms on simulation, and score it on what was held apart.

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
    crop_voxels
        Side of the cubes it learns from.
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
    keep
        Folder that keeps simulated tomograms: another training takes them from there.
    crops
        How often a tomogram is learned from before another takes its place.
    init_from
        Model folder, or a shipped model's name, to start from instead of random weights.
    resume
        Go on from the checkpoint in the output folder, if there is one.
    restart
        With --resume, start from nothing where that checkpoint was made with other settings or data.
    tomograms
        Simulated tomograms for the scores.
    """
    from dataclasses import replace

    import torch

    from emflow.cli.progress import say
    from emflow.cli.training import library_of, simulated, train, write_metrics
    from emflow.evaluation.tomogram_denoising import Volume, evaluate_tomogram_denoiser
    from emflow.io.model import save_model
    from emflow.io.simulated_tomograms import KeptTomograms
    from emflow.model_card import DENOISE_TOMOGRAM
    from emflow.simulation.tomograms import SimulatedTomogram
    from emflow.training import tomogram_denoiser
    from emflow.training.tomograms import Draw, TrainingTomograms, held_apart
    from emflow.volume_denoising import denoised

    torch.set_num_threads(threads)
    config = replace(learning.config(steps=steps, seed=seed), crop_pixels=crop_voxels)
    architecture = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "channels": list(channels)}
    library, sources = library_of(models, allow_kept_apart=allow_kept_apart)
    draw: Draw = TrainingTomograms(library)
    samples = tomogram_denoiser.TomogramDenoiserSamples(draw if keep is None else KeptTomograms(draw, keep))
    batch = tomogram_denoiser.tomogram_denoiser_batch
    with simulated(samples, batch, config, workers=workers, window=24, crops=crops, kept_apart=2) as material:
        network, made = train(
            task=DENOISE_TOMOGRAM,
            architecture=architecture,
            config=config,
            material=material,
            loss=tomogram_denoiser.tomogram_denoiser_loss,
            output=output,
            device=device,
            init_from=init_from,
            resume=resume,
            restart=restart,
            sources=sources,
        )
    say(DENOISE_TOMOGRAM, "scoring")

    def denoise(tomogram: SimulatedTomogram) -> Volume:
        return denoised(network, (tomogram.even, tomogram.odd))

    scores = evaluate_tomogram_denoiser(denoise, held_apart(tomograms, seed + 1))
    card = replace(tomogram_denoiser.new_card(architecture), training=made, scores=scores)
    save_model(output, network, card)
    write_metrics(output, scores)
    gain = scores["denoised_decibel"] - scores["best_gaussian_decibel"]
    say(
        DENOISE_TOMOGRAM,
        f"gain over the best Gaussian {gain:.2f} dB, worst shell {scores['worst_shell_gain']}",
    )
