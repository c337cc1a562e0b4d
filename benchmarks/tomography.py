"""Tomography where the truth is known: alignment, denoising, segmentation, picks, cost.

    python benchmarks/tomography.py [--tomograms 4] [--seed 2026] [--series 6] [--segmenter MODEL ...]
        [--models FOLDER] [--map FILE=KDA ...] [--default] [--thin]

Tomograms are of seeds and structures that no training has seen: made-up ones, or with --models and --map
molecules: atomic models above 1500 kDa take the ribosome's place, all others those of complexes. A map's
density is given the potential that an atomic model of its mass would have. Their ice is 80 to 200 nm thick,
60 to 100 with --thin. Several segmenters are judged side by side on the same tomograms; with --default only
as the pipeline has it when nothing else is said, along all axes of denoised tomograms. Prints what
benchmarks/RESULTS.md keeps.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import mrcfile
import numpy as np
import torch

from emflow.evaluation.membranes import SurfaceCounts, surfaces_by_wedge
from emflow.evaluation.segmentation import class_scores, evaluate_labels
from emflow.evaluation.tomogram_denoising import evaluate_tomogram_denoiser
from emflow.evaluation.volume_picking import PickScores, match_picks
from emflow.io.atomic_models import read_atomic_models
from emflow.io.model import load_model, shipped_model
from emflow.io.volume_picks import SUGGESTED_THRESHOLD
from emflow.model_card import DENOISE_TOMOGRAM, SEGMENT
from emflow.networks import UNet
from emflow.reconstruction import ramp_filter, reconstruct_slab
from emflow.resources import model_folder
from emflow.scoring_volumes import known_voxels
from emflow.segmentation import SCORE
from emflow.simulation.shapes import Structure, centred_structure
from emflow.simulation.tomograms import (
    SimulatedTomogram,
    TomogramRanges,
    draw_specimen,
    record_tilt_series,
)
from emflow.simulation.tomograms.specimen import Particle
from emflow.simulation.tomograms.tilts import draw_geometry
from emflow.tilt_alignment import align, shift_error
from emflow.tomogram_classes import Label
from emflow.training.tomograms import RANGES, SHAPE, THICK_RANGES, THICK_SHAPE, held_apart
from emflow.volume_denoising import denoised
from emflow.volume_picking import centred_angstrom, find_peaks

PIXEL = 10.0
# As pick_tomogram has them: the lowest figure of merit that it keeps, and angstrom between two picks.
FLOOR, DISTANCE = 0.2, 150.0
# What complexes are scored apart by, in kilodalton: below, within and above what a bar was set for.
MASSES = ((350.0, 400.0), (400.0, 700.0), (700.0, 1500.0))
# Of protein, as atomic models have it.
VOLT_PER_DALTON, CUBIC_ANGSTROM_PER_DALTON = 4.2, 1.21
# The size that the time of a segmentation is told for.
LARGE = (464, 928, 928)


def molecules(models: Path | None, maps: list[str]) -> tuple[list[Structure], list[Structure]]:
    """Return the structures that take the ribosome's place, and the complexes'."""
    found = [] if models is None else [structure for structure, _ in read_atomic_models(models)]
    for one in maps:
        path, kilodalton = one.rsplit("=", 1)
        found.append(structure_of_map(Path(path), 1e3 * float(kilodalton)))
    for one in found:
        print(f"{one.name}: {mass(one):.0f} kDa by its potential, {one.diameter_angstrom:.0f} A across")
    return [one for one in found if mass(one) > 1500], [one for one in found if mass(one) <= 1500]


def mass(structure: Structure) -> float:
    """Return the mass of a structure of protein in kilodalton, by its potential."""
    return float(structure.weights.sum()) / VOLT_PER_DALTON / 1e3


def structure_of_map(path: Path, dalton: float) -> Structure:
    """Return the densest part of a map, of the volume and the potential of protein of that mass."""
    with mrcfile.open(path, permissive=True) as file:
        density, voxel = np.asarray(file.data, dtype=np.float32), float(file.voxel_size.x)
    count = round(dalton * CUBIC_ANGSTROM_PER_DALTON / voxel**3)
    dense = np.argsort(density, axis=None)[-count:]
    positions = voxel * np.stack(np.unravel_index(dense, density.shape), 1)[:, ::-1].astype(np.float64)
    weights = np.full(count, dalton * VOLT_PER_DALTON / count)
    return centred_structure(path.name.split(".")[0], positions, weights, voxel / 2, rescalable=False)


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
        truth: list[list[Particle]] = []
        for score, tomogram in zip(scores, tomograms, strict=True):
            found = score[label] / np.float32(SCORE)
            picks = find_peaks(found.__getitem__, found.shape, distance_voxels=DISTANCE / PIXEL, floor=FLOOR)
            points = centred_angstrom(picks.voxels_zyx, found.shape, PIXEL)
            particles = [one for one in tomogram.particles if one.label == label]
            true = np.array([one.centre_angstrom for one in particles]).reshape(-1, 3)
            diameters = np.array([one.diameter_angstrom for one in particles])
            parts.append(match_picks(points, picks.figure_of_merit, true, diameters))
            truth.append(particles)
        print(f"  {label.name.lower():9} {PickScores.of(parts, SUGGESTED_THRESHOLD)}")
        if label == Label.COMPLEX:
            for name, belongs in groups(truth).items():
                apart = [
                    part.among(np.array([belongs(one) for one in particles], dtype=bool))
                    for part, particles in zip(parts, truth, strict=True)
                ]
                print(f"    {name} {PickScores.of(apart, SUGGESTED_THRESHOLD)}")


def groups(truth: list[list[Particle]]) -> dict[str, Callable[[Particle], bool]]:
    """Return what complexes are scored apart by: masses and kinds, by their names."""
    found: dict[str, Callable[[Particle], bool]] = {
        f"{low:.0f} to {high:.0f} kDa": partial(_between, low, high) for low, high in MASSES
    }
    for species in sorted({one.species for particles in truth for one in particles}):
        found[species] = partial(_is, species)
    return found


def _between(low: float, high: float, particle: Particle) -> bool:
    return low <= particle.kilodalton < high


def _is(species: str, particle: Particle) -> bool:
    return particle.species == species


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


def cost(network: UNet, looks: int) -> None:
    """Print seconds of a segmentation, extrapolated from blocks, and of a reconstruction."""
    for axes, shape in (("z", (12, 464, 464)), ("zyx", (96, 240, 240))):
        block = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        started = time.process_time()
        class_scores(network, block, axes, looks)
        seconds = (time.process_time() - started) * np.prod(LARGE) / block.size
        print(
            f"segmentation of {LARGE[2]} x {LARGE[1]} x {LARGE[0]}, slices along {', '.join(axes)}: "
            f"{looks} looks: {seconds / 60:.1f} CPU-minutes (from {block.size / 1e6:.1f} Mvoxel)"
        )
    rng = np.random.default_rng(0)
    geometry = draw_geometry(rng, TomogramRanges())
    images = torch.from_numpy(rng.normal(size=(len(geometry), 256, 256)).astype(np.float32))
    filtered = ramp_filter(images, geometry, 64)
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
    parser.add_argument("--seed", type=int, default=2026, help="of the tomograms")
    parser.add_argument("--models", type=Path, help="folder of atomic models that were held apart")
    parser.add_argument(
        "--map", nargs="*", default=[], metavar="FILE=KDA", help="maps of held-apart complexes"
    )
    parser.add_argument(
        "--segmenter", nargs="+", default=["segmenter"], help="model folders, or shipped models' names"
    )
    parser.add_argument("--default", action="store_true", help="denoised tomograms along all axes alone")
    parser.add_argument("--looks", type=int, default=2, help="at each slice: 1, or 2 with a mirrored one")
    parser.add_argument("--thin", action="store_true", help="ice of 60 to 100 nm")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.series:
        alignment(arguments.series)
    segmenters = {name: load_model(model_folder(name), SEGMENT)[0] for name in arguments.segmenter}
    denoiser, _ = load_model(shipped_model("tomogram_denoiser"), DENOISE_TOMOGRAM)
    ribosomes, complexes = molecules(arguments.models, arguments.map)
    shape, ranges = (SHAPE, RANGES) if arguments.thin else (THICK_SHAPE, THICK_RANGES)
    tomograms = held_apart(
        arguments.tomograms, arguments.seed, shape, ranges=ranges, ribosomes=ribosomes, complexes=complexes
    )
    if not arguments.default:
        scores = evaluate_tomogram_denoiser(lambda one: denoised(denoiser, (one.even, one.odd)), tomograms)
        print(f"denoising: {scores}")
    swapped = [replace(one, full=denoised(denoiser, (one.even, one.odd))) for one in tomograms]
    for name, segmenter in segmenters.items():
        for what, volumes in (("raw", tomograms), ("denoised", swapped)):
            for axes in ("z", "zyx"):
                if (what, axes) == ("denoised", "zyx") or not arguments.default:
                    print(f"{name}: {what} tomograms, slices along {', '.join(axes)}")
                    segmentation(segmenter, volumes, axes, arguments.looks)
    cost(next(iter(segmenters.values())), arguments.looks)


def segmentation(segmenter: UNet, tomograms: list[SimulatedTomogram], axes: str, looks: int) -> None:
    """Print how well classes, particles and membranes are found."""
    found = [class_scores(segmenter, one.full, axes, looks) for one in tomograms]
    labels = [labels for _, labels in found]
    for name, one in evaluate_labels(labels, tomograms).items():
        print(f"  {name}: {one}")
    print("  picks, figure of merit at least 0.5")
    picking([scores for scores, _ in found], tomograms)
    membranes(labels, tomograms)


if __name__ == "__main__":
    main()
