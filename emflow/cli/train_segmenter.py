"""``emflow train-segmenter``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emflow.cli.training_options import Channels, Learning, Seed, Steps, TomogramSimulation, TrainingRun

LEARNING = Learning()
SIMULATION = TomogramSimulation()


def train_segmenter(
    *,
    run: TrainingRun,
    steps: Steps = 4000,
    learning: Learning = LEARNING,
    seed: Seed = 17,
    channels: Channels = (16, 64, 128, 192, 208),
    slices: int = 7,
    crop_pixels: int = 160,
    simulation: TomogramSimulation = SIMULATION,
    denoiser: Path | None = None,
    tomograms: int = 6,
    tomogram: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    labels: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    label_names: Path | None = None,
    not_labelled: int = 255,
    replay: float = 0.0,
) -> None:
    """Train a segmenter on simulated tomograms, or on slices that you labelled, and score it on others.

    Your own labels do best with --init-from segmenter --steps 300 --learning-rate 5e-4. Every fifth labelled
    slice along z, where there are three or more, is kept apart to judge by.

    Parameters
    ----------
    run
        Where it runs, what it starts from, and where it leaves the model.
    learning
        How it learns.
    simulation
        What it learns from, labels of your own apart.
    slices
        Neighbouring slices that it sees, an odd number.
    crop_pixels
        Side of the crops it learns from.
    denoiser
        Model folder of a tomogram denoiser, or a shipped one's name: some tomograms are learned from as
        it denoises them.
    tomograms
        Simulated tomograms for the scores.
    tomogram
        Tomogram of which some slices are labelled: MRC, OME-Zarr, or the tomogram.tsv of a session.
    labels
        Its labels: MRC, TIFF or Zarr of the same voxels, each the number of a class of the segmenter.
    label_names
        Text file with a line for each value of the labels, the value and its class, where they are no such
        numbers; a Zarr store may state them itself.
    not_labelled
        Value of voxels that nobody labelled; 255 always is one.
    replay
        Share of simulated crops in each batch, so that what the tomogram does not show is not forgotten.
    """
    from dataclasses import replace
    from functools import partial

    import torch

    from emflow.cli.own_labels import LabelFiles, train_on_labels
    from emflow.cli.progress import say
    from emflow.cli.training import library_of, simulated_tomograms, starting_model, train, write_metrics
    from emflow.evaluation.segmentation import evaluate_segmenter
    from emflow.io.model import load_model, save_model
    from emflow.io.simulated_tomograms import KeptTomograms
    from emflow.model_card import DENOISE_TOMOGRAM, SEGMENT
    from emflow.networks import build
    from emflow.tomogram_classes import CLASS_NAMES
    from emflow.training import segmenter
    from emflow.training.tomograms import TrainingTomograms, held_apart

    torch.set_num_threads(run.threads)
    config = replace(learning.config(steps=steps, seed=seed), crop_pixels=crop_pixels)
    architecture = {
        "name": "UNet",
        "in_channels": slices,
        "out_channels": len(CLASS_NAMES),
        "channels": list(channels),
    }
    library, sources = library_of(simulation)
    draw = TrainingTomograms(library)
    denoising = None
    if denoiser is not None:
        denoising, its_card = load_model(starting_model(denoiser), DENOISE_TOMOGRAM)
        sources = {**sources, "denoiser": its_card.weights_sha256}
    samples = segmenter.SegmenterSamples(
        draw if simulation.keep is None else KeptTomograms(draw, simulation.keep), denoising
    )
    if tomogram or labels:
        train_on_labels(
            LabelFiles(tomogram or [], labels or [], label_names, not_labelled),
            segmenter.new_card(architecture),
            config,
            run=run,
            replay=replay,
            simulate=partial(simulated_tomograms, samples, simulation=simulation),
        )
        return
    batch = partial(segmenter.segmenter_batch, slices=slices, stride=build(architecture).stride)
    with simulated_tomograms(samples, batch, config, simulation=simulation) as material:
        network, made = train(
            task=SEGMENT,
            architecture=architecture,
            config=config,
            material=material,
            loss=segmenter.segmenter_loss,
            run=run,
            sources={**sources, **segmenter.TOLD},
        )
    say(SEGMENT, "scoring")
    apart = held_apart(tomograms, seed + 1)
    scores = evaluate_segmenter(network, apart, "zyx")
    save_model(run.output, network, replace(segmenter.new_card(architecture), training=made, scores=scores))
    write_metrics(run.output, scores)
    membrane = scores["membrane"]
    say(SEGMENT, f"membrane: Dice {membrane['dice']}, of surfaces {membrane['surface_dice']}")
