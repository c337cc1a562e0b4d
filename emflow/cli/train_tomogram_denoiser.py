"""``emflow train-tomogram-denoiser``."""

from dataclasses import dataclass

from emflow.cli.training_options import Channels, Learning, Seed, Steps, TomogramSimulation, TrainingRun


@dataclass(frozen=True, kw_only=True)
class CubeLearning(Learning):
    """How a network learns from cubes.

    Attributes
    ----------
    batch
        Cubes a step.
    learning_rate
        Highest rate of the schedule. At the other networks' rate, 2e-3, the shipped width lost its way.
    """

    batch: int = 4
    learning_rate: float = 8e-4


@dataclass(frozen=True, kw_only=True)
class CubeSimulation(TomogramSimulation):
    """What tomograms are simulated to take cubes from."""

    crops: float = 300.0


LEARNING = CubeLearning()
SIMULATION = CubeSimulation()


def train_tomogram_denoiser(
    *,
    run: TrainingRun,
    steps: Steps = 1500,
    learning: CubeLearning = LEARNING,
    seed: Seed = 17,
    channels: Channels = (32, 64),
    crop_voxels: int = 56,
    simulation: CubeSimulation = SIMULATION,
    tomograms: int = 4,
) -> None:
    """Train a denoiser of tomograms on simulation, and score it on what was held apart.

    Parameters
    ----------
    run
        Where it runs, what it starts from, and where it leaves the model.
    learning
        How it learns.
    simulation
        What it learns from.
    crop_voxels
        Side of the cubes it learns from.
    tomograms
        Simulated tomograms for the scores.
    """
    from dataclasses import replace

    import torch

    from emflow.cli.progress import say
    from emflow.cli.training import library_of, simulated_tomograms, train, write_metrics
    from emflow.evaluation.tomogram_denoising import Volume, evaluate_tomogram_denoiser
    from emflow.io.model import save_model
    from emflow.io.simulated_tomograms import KeptTomograms
    from emflow.model_card import DENOISE_TOMOGRAM
    from emflow.simulation.tomograms import SimulatedTomogram
    from emflow.training import tomogram_denoiser
    from emflow.training.tomograms import TrainingTomograms, held_apart
    from emflow.volume_denoising import denoised

    torch.set_num_threads(run.threads)
    config = replace(learning.config(steps=steps, seed=seed), crop_pixels=crop_voxels)
    architecture = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "channels": list(channels)}
    library, sources = library_of(simulation)
    draw = TrainingTomograms(library)
    samples = tomogram_denoiser.TomogramDenoiserSamples(
        draw if simulation.keep is None else KeptTomograms(draw, simulation.keep)
    )
    batch = tomogram_denoiser.tomogram_denoiser_batch
    with simulated_tomograms(samples, batch, config, simulation=simulation) as material:
        network, made = train(
            task=DENOISE_TOMOGRAM,
            architecture=architecture,
            config=config,
            material=material,
            loss=tomogram_denoiser.tomogram_denoiser_loss,
            run=run,
            sources=sources,
        )
    say(DENOISE_TOMOGRAM, "scoring")

    def denoise(tomogram: SimulatedTomogram) -> Volume:
        return denoised(network, (tomogram.even, tomogram.odd))

    scores = evaluate_tomogram_denoiser(denoise, held_apart(tomograms, seed + 1))
    card = replace(tomogram_denoiser.new_card(architecture), training=made, scores=scores)
    save_model(run.output, network, card)
    write_metrics(run.output, scores)
    gain = scores["denoised_decibel"] - scores["best_gaussian_decibel"]
    say(
        DENOISE_TOMOGRAM,
        f"gain over the best Gaussian {gain:.2f} dB, worst shell {scores['worst_shell_gain']}",
    )
