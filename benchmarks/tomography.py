"""Tomography where the truth is known: alignment, denoising, segmentation, picks, cost.

    python benchmarks/tomography.py [--tomograms 4] [--series 6]

Tomograms are of seeds and structures that no training has seen. Prints what benchmarks/RESULTS.md keeps.
"""

import argparse
import resource
import time
from dataclasses import replace

import numpy as np
import torch

from emflow.cli.pick_tomogram import SUGGESTED_THRESHOLD
from emflow.evaluation.membranes import SurfaceCounts, surfaces_by_wedge
from emflow.evaluation.segmentation import class_scores, evaluate_segmenter
from emflow.evaluation.tomogram_denoising import evaluate_tomogram_denoiser
from emflow.evaluation.volume_picking import PickScores, match_picks
from emflow.io.model import load_model, shipped_model
from emflow.model_card import DENOISE_TOMOGRAM, SEGMENT
from emflow.networks import UNet
from emflow.reconstruction import ramp_filter, reconstruct_slab
from emflow.scoring_volumes import known_voxels
from emflow.segmentation import SCORE, whole
from emflow.simulation.tomograms import (
    SimulatedTomogram,
    TomogramRanges,
    draw_specimen,
    record_tilt_series,
)
from emflow.simulation.tomograms.tilts import draw_geometry
from emflow.tilt_alignment import align, shift_error
from emflow.tomogram_classes import Label
from emflow.training.tomograms import held_apart
from emflow.volume_denoising import denoised
from emflow.volume_picking import centred_angstrom, find_peaks

PIXEL = 10.0
# As pick_tomogram has them: the lowest figure of merit that it keeps, and angstrom between two picks.
FLOOR, DISTANCE = 0.2, 150.0
# What complexes are scored apart by, in kilodalton: below, within and above what a bar was set for.
MASSES = ((350.0, 400.0), (400.0, 700.0), (700.0, 1100.0))
# The size that the time of a segmentation is told for.
LARGE = (464, 928, 928)


def alignment(count: int) -> None:
    """Print residual shift and axis error of series that start misaligned, beside doing nothing."""
    print(
        f"alignment, {count} series of 256 x 256 pixels of 10 A, shifts to 5 %, axis off by up to 3 degrees"
    )
    print("seed  tilts  carbon  nominal px  aligned px  axis before  after")
    rows = []
    ranges = TomogramRanges(thickness_angstrom=(600.0, 1200.0), max_tilt_degrees=(58.0, 60.0))
    ranges = replace(ranges, lamella_tilt_degrees=(0.0, 0.0))
    for seed in range(100, 100 + count):
        rng = np.random.default_rng(seed)
        specimen = draw_specimen(rng, ranges, (140, 256, 256), PIXEL)
        true = draw_geometry(rng, ranges, shift_angstrom=0.05 * 256 * PIXEL)
        series = record_tilt_series(rng, ranges, specimen, true, (256, 256))
        error = rng.uniform(-3, 3)
        start = replace(true.shifted(np.zeros((len(true), 2))), z_rot_degrees=true.z_rot_degrees + error)
        images = torch.from_numpy(series.contrast(series.even + series.odd))
        found = align(images, start, PIXEL)
        axis = float((found.geometry.z_rot_degrees - true.z_rot_degrees)[0])
        shift = shift_error(found.geometry, true) / PIXEL
        carbon = bool((specimen.labels == Label.CARBON).any())
        rows.append((shift, abs(axis), carbon))
        nominal = shift_error(start, true) / PIXEL
        told = f"{seed:4d}  {len(true):5d}  {carbon!s:6}  {nominal:10.2f}  {shift:10.2f}"
        print(f"{told}  {error:11.2f}  {axis:5.2f}")
    shifts, axes, _ = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    print(
        f"median {np.median(shifts):.2f} px (bar 1.5: {(shifts < 1.5).sum()} of {count}), "
        f"axis {np.median(axes):.2f} degrees (bar 0.5: {(axes < 0.5).sum()} of {count})"
    )


def picking(scores: list[np.ndarray], tomograms: list[SimulatedTomogram]) -> None:
    """Print precision, recall and F1 of picks within half a radius."""
    for label in (Label.RIBOSOME, Label.COMPLEX):
        parts = []
        masses: list[np.ndarray] = []
        for score, tomogram in zip(scores, tomograms, strict=True):
            found = score[label] / np.float32(SCORE)
            picks = find_peaks(whole(found), found.shape, distance_voxels=DISTANCE / PIXEL, floor=FLOOR)
            points = centred_angstrom(picks.voxels_zyx, found.shape, PIXEL)
            particles = [one for one in tomogram.particles if one.label == label]
            true = np.array([one.centre_angstrom for one in particles]).reshape(-1, 3)
            diameters = np.array([one.diameter_angstrom for one in particles])
            parts.append(match_picks(points, picks.figure_of_merit, true, diameters))
            masses.append(np.array([one.kilodalton for one in particles]))
        print(f"  {label.name.lower():9} {PickScores.of(parts, SUGGESTED_THRESHOLD)}")
        if label == Label.COMPLEX:
            for low, high in MASSES:
                bands = [(mass >= low) & (mass < high) for mass in masses]
                apart = [part.among(band) for part, band in zip(parts, bands, strict=True)]
                print(f"    {low:.0f} to {high:.0f} kDa {PickScores.of(apart, SUGGESTED_THRESHOLD)}")


def membranes(labels: list[np.ndarray], tomograms: list[SimulatedTomogram]) -> None:
    """Print surface Dice where the tilts show membranes, and where the missing wedge hides them."""
    rows = []
    for found, tomogram in zip(labels, tomograms, strict=True):
        true, known = tomogram.labels == Label.MEMBRANE, known_voxels(tomogram.labels)
        if true.any():
            rows.append(surfaces_by_wedge(found == Label.MEMBRANE, true, known, tomogram.geometry))
    if not rows:
        print("  no membranes")
        return
    for name, parts in zip(("shown", "hidden"), zip(*rows, strict=True), strict=True):
        counts = SurfaceCounts.total(parts)
        mean = np.nanmean([one.dice for one in parts])
        print(
            f"  membranes {name} by the tilts: {counts.true} voxels, surface Dice {mean:.3f} (a mean of "
            f"tomograms), {counts.dice:.3f} (of all voxels); found {counts.recall:.3f}"
        )


def cost(network: UNet) -> None:
    """Print seconds of a segmentation, extrapolated from blocks, and of a reconstruction."""
    for axes, shape in (("z", (12, 464, 464)), ("zyx", (96, 240, 240))):
        block = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        started = time.process_time()
        class_scores(network, block, axes)
        seconds = (time.process_time() - started) * np.prod(LARGE) / block.size
        print(
            f"segmentation of {LARGE[2]} x {LARGE[1]} x {LARGE[0]}, slices along {', '.join(axes)}: "
            f"{seconds / 60:.1f} CPU-minutes (from {block.size / 1e6:.1f} Mvoxel)"
        )
    rng = np.random.default_rng(0)
    geometry = draw_geometry(rng, TomogramRanges())
    images = torch.from_numpy(rng.normal(size=(len(geometry), 256, 256)).astype(np.float32))
    filtered = ramp_filter(images, geometry)
    started = time.process_time()
    reconstruct_slab(filtered, geometry, PIXEL, (64, 256, 256), 0, 32)
    rate = 32 * 256 * 256 * len(geometry) / (time.process_time() - started)
    print(f"reconstruction: {rate / 1e6:.0f} million voxels x tilts per CPU-second")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tomograms", type=int, default=4)
    parser.add_argument("--series", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    alignment(arguments.series)
    segmenter, _ = load_model(shipped_model("segmenter"), SEGMENT)
    denoiser, _ = load_model(shipped_model("tomogram_denoiser"), DENOISE_TOMOGRAM)
    tomograms = held_apart(arguments.tomograms, seed=2026)
    scores = evaluate_tomogram_denoiser(lambda one: denoised(denoiser, (one.even, one.odd)), tomograms)
    print(f"denoising: {scores}")
    swapped = [replace(one, full=denoised(denoiser, (one.even, one.odd))) for one in tomograms]
    for what, volumes in (("raw", tomograms), ("denoised", swapped)):
        for axes in ("z", "zyx"):
            print(f"segmentation of {what} tomograms, slices along {', '.join(axes)}")
            for name, one in evaluate_segmenter(segmenter, volumes, axes).items():
                print(f"  {name}: {one}")
            print(f"picks in {what} tomograms, slices along {', '.join(axes)}, figure of merit at least 0.5")
            segmented = [class_scores(segmenter, one.full, axes) for one in volumes]
            picking([scores for scores, _ in segmented], tomograms)
        membranes([labels for _, labels in segmented], tomograms)  # of slices along all axes, the last
    cost(segmenter)


if __name__ == "__main__":
    main()
