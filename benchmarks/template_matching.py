"""Template matching where the truth is known: F1 beside the segmenter's, angles, and cost.

    python benchmarks/template_matching.py [--tomograms 2] [--side 192] [--step 15] [--classes ribosome]
    python benchmarks/template_matching.py --mixed [--seeds 2026 5150] [--tomograms 4] [--side 144]
        [--step 30] [--models FOLDER]

Tomograms and structures are none that any training has seen. The template is the very structure that was put
into the specimen, a ribosome or a complex of 550 kDa: as much as a user of a known particle knows. Tilts are
known to an alignment's errors, the CTF exactly. ``--mixed`` takes the tomograms of benchmarks/tomography.py
and of other seeds, their middle ``--side`` voxels a side, and looks for each complex of 400 to 700 kDa of
which there are five or more, or for each atomic model of a folder that takes the place of made-up ones:
among all peaks, among those outside of the classes that a config names by itself, with ribosomes as well,
and in what the shipped segmenter says of the denoised tomogram. Prints what benchmarks/RESULTS.md keeps.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from emflow.config.tomography import TemplateMatching
from emflow.evaluation.segmentation import class_scores
from emflow.evaluation.volume_picking import MatchedPicks, PickScores, match_picks
from emflow.io.atomic_models import read_atomic_models
from emflow.io.model import load_model, shipped_model
from emflow.model_card import DENOISE_TOMOGRAM, SEGMENT
from emflow.resampling import Resampling
from emflow.segmentation import SCORE, whole
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.ranges import uniform
from emflow.simulation.shapes import Structure, procedural_structure
from emflow.simulation.tomograms import (
    Particle,
    SimulatedTiltSeries,
    Specimen,
    TomogramRanges,
    draw_specimen,
    record_tilt_series,
)
from emflow.simulation.tomograms.ribosomes import ribosome_like
from emflow.simulation.tomograms.simulate import reconstructed, weighted
from emflow.simulation.tomograms.tilts import draw_geometry, misaligned
from emflow.standardised_tomogram import StandardisedTomogram
from emflow.template_matching import figures_of_merit, match
from emflow.template_orientations import misorientation_degrees, orientations, rotations_of
from emflow.template_preparation import template_from_structure
from emflow.template_refinement import refined_rotations
from emflow.template_weighting import TiltOptics, tomogram_transfer
from emflow.tilt_geometry import TiltGeometry
from emflow.tomogram_classes import Label
from emflow.training.tomograms import RANGES, SHAPE
from emflow.volume_denoising import denoised
from emflow.volume_picking import centred_angstrom, find_peaks, labels_at

PIXEL = 10.0
DEPTH = 120
# Both pickers' own threshold, and the floor under what they keep.
MERIT, FLOOR = 0.5, 0.2
COMPLEX_DALTON = 550e3
# With --mixed: which of the made-up complexes are looked for, and how many particles of one there have to be.
MIXED_KILODALTON = (400.0, 700.0)
FEWEST = 5
_VOLT_PER_DALTON = 2.6 / 0.81


@dataclass(frozen=True)
class Known:
    """A tomogram, what is known of its tilts, and the particles that are looked for."""

    even: np.ndarray
    odd: np.ndarray
    geometry: TiltGeometry
    series: SimulatedTiltSeries
    particles: list[Particle]
    exposure_weighted: bool

    def standardised(self, pixel: float) -> StandardisedTomogram:
        """Return the tomogram at voxels of so many angstrom."""
        volume = 0.5 * (self.even + self.odd)
        depth, height, width = (max(2, 2 * round(side * PIXEL / pixel / 2)) for side in volume.shape)
        work = Resampling(volume.shape, (depth, height, width), pixel / PIXEL)
        return StandardisedTomogram.measured(
            work.slab(whole(volume), 0, depth).__getitem__, (depth, height, width)
        )

    def optics(self) -> TiltOptics:
        """Return what is known of each image's contrast transfer."""
        series = self.series
        return TiltOptics(
            series.defocus_angstrom,
            np.zeros(len(series.geometry)),
            series.pre_exposure_electrons_per_square_angstrom
            + series.exposure_electrons_per_square_angstrom / 2,
            series.voltage_kilovolt,
            series.spherical_aberration_millimetre,
            series.amplitude_contrast,
            "none",
            self.exposure_weighted,
        )

    def truth(self, label: Label, species: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Return centres (n, 3), (x, y, z) in angstrom, and angles (n, 3) of a class, or of a kind."""
        particles = [p for p in self.particles if p.label == label and species in ("", p.species)]
        centres = np.array([each.centre_angstrom for each in particles]).reshape(-1, 3)
        angles = [(each.rot_degrees, each.tilt_degrees, each.psi_degrees) for each in particles]
        return centres, np.array(angles).reshape(-1, 3)


def structures() -> dict[Label, Structure]:
    """Return the two particles that are looked for."""
    one = procedural_structure("held_apart", 4021)
    factor = (COMPLEX_DALTON / (one.weights.sum() / _VOLT_PER_DALTON)) ** (1 / 3)
    return {
        Label.RIBOSOME: ribosome_like(np.random.default_rng(4021)),
        Label.COMPLEX: one.rescaled(float(factor)),
    }


def recorded(
    rng: np.random.Generator, ranges: TomogramRanges, specimen: Specimen, shape: tuple[int, int, int]
) -> Known:
    """Record a specimen as `emflow.simulation.tomograms.simulate_tomogram` does, and keep its tilts."""
    true = draw_geometry(rng, ranges)
    series = record_tilt_series(rng, ranges, specimen, true, shape[1:])
    shift, axis = uniform(rng, ranges.residual_shift_pixels), uniform(rng, ranges.residual_axis_degrees)
    found = misaligned(rng, true, shift * PIXEL, axis)
    weigh = bool(rng.random() < ranges.exposure_weighting_probability)
    even, odd = (
        reconstructed(weighted(images, series) if weigh else images, found, PIXEL, shape)
        for images in (series.contrast(series.even), series.contrast(series.odd))
    )
    return Known(even, odd, found, series, specimen.particles, weigh)


def of_two_kinds(seed: int, side: int) -> Known:
    """Simulate a tomogram that holds both of `structures`, and nothing else that is compact."""
    ranges = replace(RANGES, ribosome_probability=1.0, complex_probability=1.0)
    ranges = replace(ranges, ribosomes=(2000.0, 6000.0), complexes=(4000.0, 12_000.0))
    kinds = structures()
    rng, shape = np.random.default_rng((seed, 77)), (DEPTH, side, side)
    ribosomes, complexes = [kinds[Label.RIBOSOME]], [kinds[Label.COMPLEX]]
    specimen = draw_specimen(rng, ranges, shape, PIXEL, ribosomes=ribosomes, complexes=complexes)
    return recorded(rng, ranges, specimen, shape)


def mixed(count: int, seed: int, side: int, models: Sequence[Structure]) -> Iterator[tuple[Known, Structure]]:
    """Yield tomograms as `emflow.training.tomograms.held_apart` has them, for each complex in the range."""
    library = ParticleLibrary("held_apart", procedural=60)
    edge = (SHAPE[1] - side) // 2
    middle = (slice(None), slice(edge, edge + side), slice(edge, edge + side))
    ranges = replace(RANGES, complex_probability=1.0) if models else RANGES
    for number in np.random.default_rng((seed, 12)).integers(2**31, size=count):
        rng = np.random.default_rng(int(number))
        specimen = draw_specimen(rng, ranges, SHAPE, PIXEL, library=library, complexes=models)
        inside = [p for p in specimen.particles if max(map(abs, p.centre_angstrom[:2])) < side / 2 * PIXEL]
        kinds = Counter((p.species, p.kilodalton) for p in inside if p.label == Label.COMPLEX)
        wanted = [
            kind
            for kind, times in sorted(kinds.items())
            if times >= FEWEST and (models or MIXED_KILODALTON[0] <= kind[1] < MIXED_KILODALTON[1])
        ]
        if not wanted:
            continue
        one = recorded(rng, ranges, specimen, SHAPE)
        one = replace(one, even=one.even[middle].copy(), odd=one.odd[middle].copy(), particles=inside)
        for name, mass in wanted:
            given = {each.name: each for each in models}
            if name in given:
                yield one, given[name]
                continue
            plain = library.structure(int(name.rsplit("-", 1)[1]))
            factor = (mass * 1e3 * _VOLT_PER_DALTON / plain.weights.sum()) ** (1 / 3)
            yield one, plain.rescaled(float(factor))


def judged(one: Known, structure: Structure, step: float, seed: int) -> None:
    """Print rows of a table: of all peaks, of those outside of what is left out, and the segmenter's."""
    diameter, name = structure.diameter_angstrom, structure.name
    segmenter, _ = load_model(shipped_model("segmenter"), SEGMENT)
    denoiser, _ = load_model(shipped_model("tomogram_denoiser"), DENOISE_TOMOGRAM)
    scores, labels = class_scores(segmenter, denoised(denoiser, (one.even, one.odd)), "zyx")
    true, turned = one.truth(Label.COMPLEX, name)
    template = template_from_structure(structure, pixel_size_angstrom=PIXEL)
    rotations = orientations(step)
    transfer = tomogram_transfer(template.box, PIXEL, one.geometry, one.optics())
    seen = one.standardised(PIXEL)
    peaks = match(seen, template, rotations, transfer, distance_voxels=0.7 * diameter / PIXEL)
    classes = labels_at(lambda first, last: labels[first:last], seen.shape, peaks.voxels_zyx)
    complexes = [each for each in one.particles if each.label == Label.COMPLEX]
    same = np.array([each.species == name for each in complexes])
    mass = next(each.kilodalton for each in complexes if each.species == name)
    start = f"| {seed} | {name}, {mass:.0f} kDa, {diameter:.0f} A | {len(true)} |"
    left_out = [Label[each.upper()] for each in TemplateMatching().outside]
    for what, values in (
        ("all peaks", []),
        ("outside", left_out),
        ("outside, ribosome too", [*left_out, Label.RIBOSOME]),
    ):
        found = peaks.where(~np.isin(classes, values))
        points = centred_angstrom(found.voxels_zyx, seen.shape, PIXEL)
        part = match_picks(points, figures_of_merit(found.scores, found.threshold()), true, diameter)
        right = (part.truth >= 0) & (part.scores >= MERIT)
        picks, met = part.order[right], part.truth[right]
        coarse, places = rotations[found.rotations[picks]], found.voxels_zyx[picks]
        refined = refined_rotations(seen, template, places, coarse, transfer, step_degrees=step)
        degrees = ", ".join(
            f"{np.median(misorientation_degrees(kept, rotations_of(turned[met]))):.0f}" if len(met) else "-"
            for kept in (coarse, refined)
        )
        print(f"{start} {what} | {_shares(part)} | {found.threshold():.3f} | {degrees} |")
    distance = 0.7 * diameter / PIXEL
    probability = scores[Label.COMPLEX] / np.float32(SCORE)
    picked = find_peaks(probability.__getitem__, seen.shape, distance_voxels=distance, floor=FLOOR)
    part = match_picks(
        centred_angstrom(picked.voxels_zyx, seen.shape, PIXEL),
        picked.figure_of_merit,
        np.array([each.centre_angstrom for each in complexes]),
        np.array([each.diameter_angstrom for each in complexes]),
    )
    print(f"{start} the segmenter | {_shares(part.among(same))} | | |", flush=True)


def _shares(part: MatchedPicks) -> str:
    scores = PickScores.of([part], MERIT)
    return f"{scores.precision:.2f}, {scores.recall:.2f}, {scores.f1:.2f} | {scores.best_f1:.2f}"


def matching(known: list[Known], label: Label, structure: Structure, pixel: float, step: float) -> None:
    """Print F1 of template picks at the suggested threshold, and at the best one."""
    template = template_from_structure(structure, pixel_size_angstrom=pixel)
    rotations = orientations(step)
    parts: list[MatchedPicks] = []
    seconds, refining, voxels = 0.0, 0.0, 0
    errors, before, after = [], [], []
    for one in known:
        seen = one.standardised(pixel)
        transfer = tomogram_transfer(template.box, pixel, one.geometry, one.optics())
        started = time.process_time()
        found = match(
            seen, template, rotations, transfer, distance_voxels=0.7 * structure.diameter_angstrom / pixel
        )
        seconds += time.process_time() - started
        voxels += int(np.prod(seen.shape))
        points = centred_angstrom(found.voxels_zyx, seen.shape, pixel)
        true, turned = one.truth(label)
        # Tomograms have thresholds of their own: half a point of merit is each one's.
        merits = figures_of_merit(found.scores, found.threshold())
        part = match_picks(points, merits, true, structure.diameter_angstrom)
        parts.append(part)
        right = (part.truth >= 0) & (part.scores >= MERIT)
        picks, met = part.order[right], part.truth[right]
        errors += np.linalg.norm(points[picks] - true[met], axis=1).tolist()
        coarse, places = rotations[found.rotations[picks]], found.voxels_zyx[picks]
        started = time.process_time()
        refined = refined_rotations(seen, template, places, coarse, transfer, step_degrees=step)
        refining += time.process_time() - started
        for kept, which in ((before, coarse), (after, refined)):
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
        found = class_scores(network, 0.5 * (one.even + one.odd), "zyx")[0][label] / np.float32(SCORE)
        picks = find_peaks(
            found.__getitem__,
            found.shape,
            distance_voxels=0.7 * structure.diameter_angstrom / PIXEL,
            floor=FLOOR,
        )
        points = centred_angstrom(picks.voxels_zyx, found.shape, PIXEL)
        parts.append(
            match_picks(points, picks.figure_of_merit, one.truth(label)[0], structure.diameter_angstrom)
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[2026])
    parser.add_argument("--models", type=Path, help="with --mixed: atomic models in place of made-up ones")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.mixed:
        models = [one for one, _ in read_atomic_models(arguments.models)] if arguments.models else []
        print("| seed | complex | true | picks | precision, recall, F1 | at best | threshold | degrees |")
        print("|---|---|---|---|---|---|---|---|")
        for seed in arguments.seeds:
            for one, structure in mixed(arguments.tomograms, seed, arguments.side, models):
                judged(one, structure, arguments.step, seed)
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
