"""Template matching where the truth is known: F1 beside the segmenter's, angles, and cost.

    python benchmarks/template_matching.py [--tomograms 2] [--side 192] [--step 15] [--classes ribosome]

Tomograms and structures are none that any training has seen. The template is the very structure that was put
into the specimen, a ribosome or a complex of 550 kDa: as much as a user of a known particle knows. Tilts are
known to an alignment's errors, the CTF exactly. Prints what benchmarks/RESULTS.md keeps.
"""

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import cKDTree

from emflow.evaluation.segmentation import class_scores
from emflow.io.model import load_model, shipped_model
from emflow.model_card import SEGMENT
from emflow.preprocessing import centre_and_spread
from emflow.resampling import Resampling
from emflow.segmentation import SCORE, whole
from emflow.simulation.ranges import uniform
from emflow.simulation.shapes import Structure, procedural_structure
from emflow.simulation.tomograms import SimulatedTiltSeries, Specimen, draw_specimen, record_tilt_series
from emflow.simulation.tomograms.ribosomes import ribosome_like
from emflow.simulation.tomograms.simulate import reconstructed, weighted
from emflow.simulation.tomograms.tilts import draw_geometry, misaligned
from emflow.template_matching import match
from emflow.template_orientations import misorientation_degrees, orientations, rotations_of
from emflow.template_preparation import template_from_structure
from emflow.template_weighting import TiltOptics, tomogram_transfer
from emflow.tilt_geometry import TiltGeometry
from emflow.tomogram_classes import Label
from emflow.training.tomograms import RANGES
from emflow.volume_picking import find_peaks

PIXEL = 10.0
DEPTH = 120
COMPLEX_DALTON = 550e3
_VOLT_PER_DALTON = 2.6 / 0.81


@dataclass(frozen=True)
class Known:
    """A tomogram, what is known of its tilts, and the truth."""

    volume: np.ndarray
    geometry: TiltGeometry
    series: SimulatedTiltSeries
    specimen: Specimen
    exposure_weighted: bool


def structures() -> dict[Label, Structure]:
    """Return the two particles that are looked for."""
    one = procedural_structure("held_apart", 4021)
    factor = (COMPLEX_DALTON / (one.weights.sum() / _VOLT_PER_DALTON)) ** (1 / 3)
    return {
        Label.RIBOSOME: ribosome_like(np.random.default_rng(4021)),
        Label.COMPLEX: one.rescaled(float(factor)),
    }


def simulated(seed: int, side: int) -> Known:
    """Simulate a tomogram that holds both particles."""
    rng = np.random.default_rng((seed, 77))
    ranges = replace(RANGES, ribosome_probability=1.0, complex_probability=1.0)
    ranges = replace(ranges, ribosomes=(2000.0, 6000.0), complexes=(4000.0, 12_000.0))
    kinds = structures()
    specimen = draw_specimen(
        rng,
        ranges,
        (DEPTH, side, side),
        PIXEL,
        ribosomes=[kinds[Label.RIBOSOME]],
        complexes=[kinds[Label.COMPLEX]],
    )
    true = draw_geometry(rng, ranges)
    series = record_tilt_series(rng, ranges, specimen, true, (side, side))
    shift, axis = uniform(rng, ranges.residual_shift_pixels), uniform(rng, ranges.residual_axis_degrees)
    found = misaligned(rng, true, shift * PIXEL, axis)
    weigh = bool(rng.random() < ranges.exposure_weighting_probability)
    images = series.contrast(series.even + series.odd)
    volume = reconstructed(weighted(images, series) if weigh else images, found, PIXEL, (DEPTH, side, side))
    return Known(volume, found, series, specimen, weigh)


def scored(points: np.ndarray, true: np.ndarray, within: float) -> tuple[int, np.ndarray]:
    """Return how many true centres (n, 3) were met, and which each point (m, 3), best first, met or -1."""
    met = np.full(len(points), -1)
    used: set[int] = set()
    tree = cKDTree(true) if len(true) else None
    for number, point in enumerate(points):
        near = tree.query_ball_point(point, within) if tree is not None else []
        free = [one for one in near if one not in used]
        if free:
            met[number] = min(free, key=lambda one: np.linalg.norm(point - true[one]))
            used.add(int(met[number]))
    return len(used), met


def told(hits: int, picked: int, true: int) -> str:
    precision, recall = hits / max(1, picked), hits / max(1, true)
    return (
        f"{true:4d} true  precision {precision:.2f}  recall {recall:.2f}  "
        f"F1 {2 * hits / max(1, picked + true):.2f}"
    )


def truth(one: Known, label: Label) -> tuple[np.ndarray, np.ndarray]:
    """Return centres (n, 3), (x, y, z) in angstrom, and angles (n, 3)."""
    particles = [each for each in one.specimen.particles if each.label == label]
    centres = np.array([each.centre_angstrom for each in particles]).reshape(-1, 3)
    angles = [(each.rot_degrees, each.tilt_degrees, each.psi_degrees) for each in particles]
    return centres, np.array(angles).reshape(-1, 3)


def matching(known: list[Known], label: Label, pixel: float, step: float) -> None:
    """Print F1 of template picks at the suggested threshold, and at the best one."""
    structure = structures()[label]
    template = template_from_structure(structure, pixel_size_angstrom=pixel)
    rotations = orientations(step)
    scores, meets, total, seconds, voxels, picked, hits, errors, angles = [], [], 0, 0.0, 0, 0, 0, [], []
    for one in known:
        shape = tuple(max(2, 2 * round(side * PIXEL / pixel / 2)) for side in one.volume.shape)
        work = Resampling(one.volume.shape, shape, pixel / PIXEL)
        volume = work.slab(whole(one.volume), 0, shape[0])
        middle = volume[shape[0] // 4 : -(shape[0] // 4)]
        centre, spread = centre_and_spread(middle.reshape(-1, shape[2]))
        series = one.series
        optics = TiltOptics(
            series.defocus_angstrom,
            np.zeros(len(series.geometry)),
            series.pre_exposure_electrons_per_square_angstrom
            + series.exposure_electrons_per_square_angstrom / 2,
            series.voltage_kilovolt,
            series.spherical_aberration_millimetre,
            series.amplitude_contrast,
            "none",
            one.exposure_weighted,
        )
        started = time.process_time()
        found = match(
            lambda part, volume=volume: volume[part],
            shape,
            template,
            rotations,
            tomogram_transfer(template.box, pixel, one.geometry, optics),
            distance_voxels=0.7 * structure.diameter_angstrom / pixel,
            centre=centre,
            spread=spread,
        )
        seconds += time.process_time() - started
        voxels += volume.size
        points = ((found.voxels_zyx - [side // 2 for side in shape]) * pixel)[:, ::-1]
        true, turned = truth(one, label)
        within = structure.diameter_angstrom / 4
        _, met = scored(points, true, within)
        above = found.scores >= found.threshold()
        hits += int((met[above] >= 0).sum())
        picked += int(above.sum())
        total += len(true)
        scores.append(found.scores)
        meets.append(met >= 0)
        right = np.flatnonzero(above & (met >= 0))
        errors += np.linalg.norm(points[right] - true[met[right]], axis=1).tolist()
        angles += misorientation_degrees(
            rotations[found.rotations[right]], rotations_of(turned[met[right]])
        ).tolist()
        print(f"    threshold {found.threshold():.3f}, best score {found.scores[:1]}", flush=True)
    score, good = np.concatenate(scores), np.concatenate(meets)
    order = np.argsort(-score)
    best = max(
        (2 * hit / (number + total), float(score[at]))
        for at, number, hit in zip(
            order, range(1, len(order) + 1), np.cumsum(good[order]).tolist(), strict=True
        )
    )
    rate = seconds / (voxels / 1e6) / (len(rotations) / 1000)
    print(
        f"  {label.name.lower():9} {structure.diameter_angstrom:.0f} A across at {pixel:g} A, "
        f"{len(rotations)} rotations: {told(hits, picked, total)} (at best {best[0]:.2f}); "
        f"{rate:.0f} CPU-seconds per Mvoxel and 1000 rotations"
    )
    if errors:
        print(f"    median error {np.median(errors):.0f} A, {np.median(angles):.0f} degrees", flush=True)


def segmenting(known: list[Known], label: Label) -> None:
    """Print F1 of the shipped segmenter's picks."""
    network, _ = load_model(shipped_model("segmenter"), SEGMENT)
    structure = structures()[label]
    hits = picked = total = 0
    for one in known:
        found = class_scores(network, one.volume, "zyx")[0][label] / np.float32(SCORE)
        picks = find_peaks(
            whole(found), found.shape, distance_voxels=0.7 * structure.diameter_angstrom / PIXEL, floor=0.5
        )
        points = ((picks.voxels_zyx - [side // 2 for side in found.shape]) * PIXEL)[:, ::-1]
        true, _ = truth(one, label)
        hit, _ = scored(points, true, structure.diameter_angstrom / 4)
        hits, picked, total = hits + hit, picked + len(points), total + len(true)
    print(f"  {label.name.lower():9} {told(hits, picked, total)}", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tomograms", type=int, default=2)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--step", type=float, default=15.0)
    parser.add_argument("--classes", nargs="+", default=["ribosome", "complex"])
    parser.add_argument("--no-segmenter", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = [simulated(seed, arguments.side) for seed in range(arguments.tomograms)]
    pixels = {Label.RIBOSOME: 20.0, Label.COMPLEX: 10.0}
    print(
        f"template matching, {arguments.tomograms} tomograms of {arguments.side} x {arguments.side} x {DEPTH}"
    )
    for name in arguments.classes:
        label = Label[name.upper()]
        matching(known, label, pixels[label], arguments.step)
    if not arguments.no_segmenter:
        print("the shipped segmenter's picks, figure of merit at least 0.5")
        for name in arguments.classes:
            segmenting(known, Label[name.upper()])


if __name__ == "__main__":
    main()
