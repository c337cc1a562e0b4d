"""Template matching where the truth is known: F1 beside the segmenter's, angles, and cost.

    python benchmarks/template_matching.py [--tomograms 2] [--side 192] [--step 15] [--classes ribosome]
    python benchmarks/template_matching.py --mixed [--seed 2026] [--tomograms 4] [--side 144] [--step 30]

Tomograms and structures are none that any training has seen. The template is the very structure that was put
into the specimen, a ribosome or a complex of 550 kDa: as much as a user of a known particle knows. Tilts are
known to an alignment's errors, the CTF exactly. ``--mixed`` takes the tomograms of benchmarks/tomography.py,
or of another seed, their middle ``--side`` voxels a side, and looks for each complex of 400 to 700 kDa.
Prints what benchmarks/RESULTS.md keeps.
"""

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from emflow.evaluation.segmentation import class_scores
from emflow.evaluation.volume_picking import MatchedPicks, PickScores, match_picks
from emflow.io.model import load_model, shipped_model
from emflow.model_card import SEGMENT
from emflow.preprocessing import centre_and_spread
from emflow.resampling import Resampling
from emflow.segmentation import SCORE, whole
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.ranges import uniform
from emflow.simulation.shapes import Structure, procedural_structure
from emflow.simulation.tomograms import (
    Particle,
    SimulatedTiltSeries,
    TomogramRanges,
    draw_specimen,
    record_tilt_series,
)
from emflow.simulation.tomograms.ribosomes import ribosome_like
from emflow.simulation.tomograms.simulate import reconstructed, weighted
from emflow.simulation.tomograms.tilts import draw_geometry, misaligned
from emflow.template_matching import figures_of_merit, match
from emflow.template_orientations import misorientation_degrees, orientations, rotations_of
from emflow.template_preparation import template_from_structure
from emflow.template_refinement import refined_rotations
from emflow.template_weighting import TiltOptics, tomogram_transfer
from emflow.tilt_geometry import TiltGeometry
from emflow.tomogram_classes import Label
from emflow.training.tomograms import RANGES, SHAPE
from emflow.volume_picking import centred_angstrom, find_peaks

PIXEL = 10.0
DEPTH = 120
# Both pickers' own threshold, and the floor under what they keep.
MERIT, FLOOR = 0.5, 0.2
COMPLEX_DALTON = 550e3
MIXED_KILODALTON = (400.0, 700.0)
_VOLT_PER_DALTON = 2.6 / 0.81


@dataclass(frozen=True)
class Known:
    """A tomogram, what is known of its tilts, and the particles that are looked for."""

    volume: np.ndarray
    geometry: TiltGeometry
    series: SimulatedTiltSeries
    particles: list[Particle]
    exposure_weighted: bool


def structures() -> dict[Label, Structure]:
    """Return the two particles that are looked for."""
    one = procedural_structure("held_apart", 4021)
    factor = (COMPLEX_DALTON / (one.weights.sum() / _VOLT_PER_DALTON)) ** (1 / 3)
    return {
        Label.RIBOSOME: ribosome_like(np.random.default_rng(4021)),
        Label.COMPLEX: one.rescaled(float(factor)),
    }


def simulated(rng: np.random.Generator, ranges: TomogramRanges, side: int, **kinds: object) -> Known:
    """Simulate a tomogram as `emflow.simulation.tomograms.simulate_tomogram` does, and keep its tilts."""
    shape = (DEPTH, side, side)
    specimen = draw_specimen(rng, ranges, shape, PIXEL, **kinds)  # type: ignore[arg-type]
    true = draw_geometry(rng, ranges)
    series = record_tilt_series(rng, ranges, specimen, true, (side, side))
    shift, axis = uniform(rng, ranges.residual_shift_pixels), uniform(rng, ranges.residual_axis_degrees)
    found = misaligned(rng, true, shift * PIXEL, axis)
    weigh = bool(rng.random() < ranges.exposure_weighting_probability)
    images = series.contrast(series.even + series.odd)
    volume = reconstructed(weighted(images, series) if weigh else images, found, PIXEL, shape)
    return Known(volume, found, series, specimen.particles, weigh)


def of_two_kinds(seed: int, side: int) -> Known:
    """Simulate a tomogram that holds both of `structures`, and nothing else that is compact."""
    ranges = replace(RANGES, ribosome_probability=1.0, complex_probability=1.0)
    ranges = replace(ranges, ribosomes=(2000.0, 6000.0), complexes=(4000.0, 12_000.0))
    kinds = structures()
    return simulated(
        np.random.default_rng((seed, 77)),
        ranges,
        side,
        ribosomes=[kinds[Label.RIBOSOME]],
        complexes=[kinds[Label.COMPLEX]],
    )


def mixed(count: int, seed: int, side: int) -> list[tuple[Known, Structure]]:
    """Return tomograms as `emflow.training.tomograms.held_apart` has them, for each complex in the range."""
    library = ParticleLibrary("held_apart", procedural=60)
    found = []
    for number in np.random.default_rng((seed, 12)).integers(2**31, size=count):
        one = simulated(np.random.default_rng(int(number)), RANGES, SHAPE[1], library=library)
        edge = (SHAPE[1] - side) // 2
        middle = np.ascontiguousarray(one.volume[:, edge : edge + side, edge : edge + side])
        inside = [
            each
            for each in one.particles
            if each.label == Label.COMPLEX and max(map(abs, each.centre_angstrom[:2])) < side / 2 * PIXEL
        ]
        for name, mass in sorted({(each.species, each.kilodalton) for each in inside}):
            if MIXED_KILODALTON[0] <= mass < MIXED_KILODALTON[1]:
                plain = library.structure(int(name.rsplit("-", 1)[1]))
                factor = (mass * 1e3 * _VOLT_PER_DALTON / plain.weights.sum()) ** (1 / 3)
                kind = [each for each in inside if (each.species, each.kilodalton) == (name, mass)]
                found.append((replace(one, volume=middle, particles=kind), plain.rescaled(float(factor))))
    return found


def truth(one: Known, label: Label) -> tuple[np.ndarray, np.ndarray]:
    """Return centres (n, 3), (x, y, z) in angstrom, and angles (n, 3)."""
    particles = [each for each in one.particles if each.label == label]
    centres = np.array([each.centre_angstrom for each in particles]).reshape(-1, 3)
    angles = [(each.rot_degrees, each.tilt_degrees, each.psi_degrees) for each in particles]
    return centres, np.array(angles).reshape(-1, 3)


def matching(known: list[Known], label: Label, structure: Structure, pixel: float, step: float) -> None:
    """Print F1 of template picks at the suggested threshold, and at the best one."""
    template = template_from_structure(structure, pixel_size_angstrom=pixel)
    rotations = orientations(step)
    parts: list[MatchedPicks] = []
    seconds, refining, voxels = 0.0, 0.0, 0
    errors, before, after = [], [], []
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
        transfer = tomogram_transfer(template.box, pixel, one.geometry, optics)
        started = time.process_time()
        found = match(
            lambda part, volume=volume: volume[part],
            shape,
            template,
            rotations,
            transfer,
            distance_voxels=0.7 * structure.diameter_angstrom / pixel,
            centre=centre,
            spread=spread,
        )
        seconds += time.process_time() - started
        voxels += volume.size
        points = centred_angstrom(found.voxels_zyx, shape, pixel)
        true, turned = truth(one, label)
        # Tomograms have thresholds of their own: half a point of merit is each one's.
        merits = figures_of_merit(found.scores, found.threshold())
        part = match_picks(points, merits, true, structure.diameter_angstrom)
        parts.append(part)
        right = (part.truth >= 0) & (part.scores >= MERIT)
        picks, met = part.order[right], part.truth[right]
        errors += np.linalg.norm(points[picks] - true[met], axis=1).tolist()
        started = time.process_time()
        refined = refined_rotations(
            lambda part, volume=volume: volume[part],
            shape,
            template,
            found.voxels_zyx[picks],
            rotations[found.rotations[picks]],
            transfer,
            step_degrees=step,
            centre=centre,
            spread=spread,
        )
        refining += time.process_time() - started
        for kept, which in ((before, rotations[found.rotations[picks]]), (after, refined)):
            kept += misorientation_degrees(which, rotations_of(turned[met])).tolist()
        print(f"    threshold {found.threshold():.3f}, best score {found.scores[:1]}", flush=True)
    rate = seconds / (voxels / 1e6) / (len(rotations) / 1000)
    print(
        f"  {label.name.lower():9} {structure.diameter_angstrom:.0f} A across at {pixel:g} A, "
        f"{len(rotations)} rotations: {PickScores.of(parts, MERIT)}; "
        f"{rate:.0f} CPU-seconds per Mvoxel and 1000 rotations"
    )
    if errors:
        angles = "; ".join(
            f"{when} {np.median(kept):.1f} (upper quartile {np.quantile(kept, 0.75):.1f})"
            for when, kept in (("on the grid", before), ("refined", after))
        )
        print(
            f"    median error {np.median(errors):.0f} A; degrees {angles}; "
            f"{refining / len(errors):.2f} CPU-seconds a peak",
            flush=True,
        )


def segmenting(known: list[Known], label: Label, structure: Structure) -> None:
    """Print F1 of the shipped segmenter's picks."""
    network, _ = load_model(shipped_model("segmenter"), SEGMENT)
    parts = []
    for one in known:
        found = class_scores(network, one.volume, "zyx")[0][label] / np.float32(SCORE)
        picks = find_peaks(
            whole(found), found.shape, distance_voxels=0.7 * structure.diameter_angstrom / PIXEL, floor=FLOOR
        )
        points = centred_angstrom(picks.voxels_zyx, found.shape, PIXEL)
        parts.append(
            match_picks(points, picks.figure_of_merit, truth(one, label)[0], structure.diameter_angstrom)
        )
    print(f"  {label.name.lower():9} {PickScores.of(parts, MERIT)}", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tomograms", type=int, default=2)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--step", type=float, default=15.0)
    parser.add_argument("--classes", nargs="+", default=["ribosome", "complex"])
    parser.add_argument("--no-segmenter", action="store_true")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.mixed:
        for one, structure in mixed(arguments.tomograms, arguments.seed, arguments.side):
            print(f"{structure.name}, {one.particles[0].kilodalton:.0f} kDa")
            matching([one], Label.COMPLEX, structure, PIXEL, arguments.step)
        return
    known = [of_two_kinds(seed, arguments.side) for seed in range(arguments.tomograms)]
    pixels = {Label.RIBOSOME: 20.0, Label.COMPLEX: 10.0}
    print(
        f"template matching, {arguments.tomograms} tomograms of {arguments.side} x {arguments.side} x {DEPTH}"
    )
    for name in arguments.classes:
        label = Label[name.upper()]
        matching(known, label, structures()[label], pixels[label], arguments.step)
    if not arguments.no_segmenter:
        print("the shipped segmenter's picks, figure of merit at least 0.5")
        for name in arguments.classes:
            label = Label[name.upper()]
            segmenting(known, label, structures()[label])


if __name__ == "__main__":
    main()
