"""The shipped models of tomograms do what random weights cannot, on a tomogram that no training has seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emflow.evaluation.segmentation import class_scores
from emflow.io.model import load_model, shipped_model
from emflow.model_card import DENOISE_TOMOGRAM, SEGMENT
from emflow.networks import build
from emflow.scoring_volumes import dice, known_voxels
from emflow.segmentation import standardisation, statistics_slices
from emflow.simulation.tomograms import SimulatedTomogram, simulate_tomogram
from emflow.tomogram_classes import Label
from emflow.training.tomograms import RANGES
from emflow.volume_denoising import denoise_block


@pytest.fixture(scope="module")
def tomogram() -> SimulatedTomogram:
    """Vesicles in thin ice."""
    ranges = replace(
        RANGES,
        thickness_angstrom=(400.0, 420.0),
        vesicles=(8000.0, 8100.0),
        vesicle_radius_angstrom=(180.0, 300.0),
        ribosome_probability=0.0,
        carbon_probability=0.0,
        complex_probability=0.0,
    )
    return simulate_tomogram(20_261, (64, 128, 128), ranges=ranges)


def _overlap(network: torch.nn.Module, tomogram: SimulatedTomogram, label: Label) -> float:
    _, found = class_scores(network, tomogram.full)  # type: ignore[arg-type]
    return dice(found == label, tomogram.labels == label, known_voxels(tomogram.labels))


def test_membranes_are_found_and_not_by_chance(tomogram: SimulatedTomogram) -> None:
    network, card = load_model(shipped_model("segmenter"), SEGMENT)
    torch.manual_seed(0)
    untrained = build(card.architecture).eval()
    assert (tomogram.labels == Label.MEMBRANE).sum() > 1000
    assert _overlap(network, tomogram, Label.MEMBRANE) > 0.5
    assert _overlap(untrained, tomogram, Label.MEMBRANE) < 0.2


def test_denoising_comes_nearer_to_the_truth(tomogram: SimulatedTomogram) -> None:
    network, card = load_model(shipped_model("tomogram_denoiser"), DENOISE_TOMOGRAM)
    torch.manual_seed(0)
    untrained = build(card.architecture).eval()
    inner = (slice(12, -12),) * 3

    def likeness(volume: np.ndarray) -> float:
        return float(np.corrcoef(volume[inner].ravel(), tomogram.clean[inner].ravel())[0, 1])

    def denoised(chosen: torch.nn.Module) -> np.ndarray:
        halves = []
        for half in (tomogram.even, tomogram.odd):
            standard = standardisation(half[statistics_slices(len(half))])
            halves.append(denoise_block(chosen, half, standard)[0])  # type: ignore[arg-type]
        return (halves[0] + halves[1]) / 2

    raw = likeness(tomogram.full)
    assert likeness(denoised(network)) > raw + 0.05
    assert likeness(denoised(untrained)) < raw
