"""Pickers side by side on the same MRC files: emflow, topaz, RELION's LoG and template matching.

    python benchmarks/picking.py --work FOLDER [--models FOLDER] [--picker MODEL] [--topaz PROGRAM]

Simulated micrographs of specimens that training never saw: clean, crowded and contaminated ones of each
atomic model in --models (made-up particles without it), then the labelled micrographs of beta-galactosidase
(EMPIAR-10017) when the folder of shared data (EMFLOW_SHARED, else ../shared) is there.

topaz has an environment of its own:

    python3 -m venv topaz && topaz/bin/pip install topaz-em 'setuptools<81'

and is named with --topaz topaz/bin/topaz. RELION's program is found on the PATH. Both are given the best of
several scales or diameter ranges, judged on the scored images themselves; template matching is told the
structure and the CTF. Picks are matched with truth one to one, within half a radius (strict) and a radius
(lenient). A tool's own threshold is the model card's, topaz's 0, and for LoG what it writes by default. All
run on one thread; the seconds are those of reading, preparing and picking. What peers gave is kept in --work
and taken from there in a second run.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import beta_galactosidase
import numpy as np
import programs

from emflow.cli.evaluate import MADE_UP, table
from emflow.evaluation.picking import Found, PickerScores, score_picker
from emflow.evaluation.specimens import CONDITIONS, Labelled, Specimen, simulate
from emflow.evaluation.template_matching import pick_with_templates
from emflow.io.atomic_models import read_atomic_models
from emflow.io.model import read_card
from emflow.io.mrc import write_mrc
from emflow.resources import model_folder

# Pixels that topaz's images give a diameter.
TOPAZ_DIAMETERS = (10.0, 14.0, 20.0, 28.0)
TOPAZ_THRESHOLD = 0.0
# Least and most diameter that RELION's LoG is told, in true diameters.
LOG_RANGES = ((0.6, 0.9), (0.8, 1.1), (0.9, 1.4))

Result = tuple[str, PickerScores, programs.Cost]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for micrographs and peers' picks")
    parser.add_argument("--models", type=Path, help="atomic models held apart; made-up particles without it")
    parser.add_argument("--picker", default="picker")
    parser.add_argument("--denoiser", default="", help="also pick on what this model makes of the images")
    parser.add_argument("--micrographs", type=int, default=1, help="of each specimen and condition")
    parser.add_argument("--side", type=int, default=1280)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--topaz", help="its program")
    parser.add_argument("--relion-autopick", default=shutil.which("relion_autopick"))
    options = parser.parse_args()
    rows = []
    for folder, micrographs, specimen in specimens(options):
        folder.mkdir(parents=True, exist_ok=True)
        for one in micrographs:
            path = folder / "micrographs" / f"{one.name}.mrc"
            if not path.is_file():
                write_mrc(path, one.image, one.pixel_size_angstrom)
        micrographs = sorted(micrographs, key=lambda one: one.name)
        for name, scores, cost in results(options, folder, micrographs, specimen):
            rows.append(
                {
                    "specimen": folder.name,
                    "picker": name,
                    **asdict(scores),
                    "CPU s a micrograph": cost.cpu_seconds / len(micrographs),
                    "peak MiB": f"{cost.peak_mib:.0f}" if cost.peak_mib else "",
                }
            )
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print()
    print(table(rows))
    (options.work / "picking.json").write_text(json.dumps(rows, indent=1) + "\n")


def specimens(options: argparse.Namespace) -> Iterator[tuple[Path, list[Labelled], Specimen | None]]:
    """Yield folders with the micrographs that belong there."""
    if options.models is None:
        particles = [Specimen.procedural(number) for number in MADE_UP]
    else:
        particles = [Specimen.of_model(structure) for structure, _ in read_atomic_models(options.models)]
    shape = (options.side, options.side)
    for specimen in particles:
        micrographs = [
            replace(
                simulate(specimen, condition, seed=options.seed * 1000 + number, shape=shape),
                name=f"{condition}_{number}",
            )
            for condition in CONDITIONS
            for number in range(options.micrographs)
        ]
        yield options.work / specimen.name.replace(" ", "_"), micrographs, specimen
    shared = Path(os.environ.get("EMFLOW_SHARED", Path(__file__).parents[2] / "shared"))
    real = beta_galactosidase.micrographs(shared)
    if real:
        yield options.work / "beta-galactosidase_real", real, None
    else:
        print(f"(beta-galactosidase left out: {shared} does not hold it)")


def results(
    options: argparse.Namespace, folder: Path, micrographs: list[Labelled], specimen: Specimen | None
) -> Iterator[Result]:
    """Yield what each picker made of the micrographs of a folder."""
    pixel_size = micrographs[0].pixel_size_angstrom
    diameter = float(np.mean([one.diameter_angstrom for one in micrographs]))
    card = read_card(model_folder(options.picker))
    model = str(model_folder(options.picker).resolve())
    found, cost = programs.emflow_pick(folder, model, pixel_size, diameter)
    yield "emflow", score_picker(micrographs, found, card.threshold), cost
    if options.denoiser:
        denoiser = str(model_folder(options.denoiser).resolve())
        found, cost = programs.emflow_pick(folder, model, pixel_size, diameter, denoised=denoiser)
        yield "emflow on denoised", score_picker(micrographs, found, card.threshold), cost
    if options.topaz:
        tries = []
        for pixels in TOPAZ_DIAMETERS:
            scale = max(1, round(diameter / pixel_size / pixels))
            found, cost = kept(
                folder / f"topaz_{pixels:g}.json",
                lambda scale=scale, pixels=pixels: programs.topaz_pick(
                    folder, options.topaz, scale, round(0.45 * pixels)
                ),
            )
            scores = score_picker(micrographs, found, TOPAZ_THRESHOLD)
            tries.append((f"topaz resnet16, {pixels:g} px a diameter", scores, cost))
        yield best(tries)
    if options.relion_autopick:
        tries = []
        for least, most in LOG_RANGES:
            both = []
            # For the curve a list down to where nothing is right, for its own threshold the default's.
            for adjust in (-2.0, 0.0):
                found, cost = kept(
                    folder / f"log_{least:g}_{most:g}_{adjust:g}.json",
                    lambda least=least, most=most, adjust=adjust: programs.relion_log(
                        folder,
                        options.relion_autopick,
                        pixel_size,
                        (least * diameter, most * diameter),
                        adjust,
                    ),
                )
                both.append(score_picker(micrographs, found, -np.inf))
            scores = replace(
                both[0],
                strict_f1_at_threshold=both[1].strict_f1_at_threshold,
                lenient_f1_at_threshold=both[1].lenient_f1_at_threshold,
                junk=both[1].junk,
            )
            tries.append((f"RELION LoG, {least:g} to {most:g} d", scores, cost))
        yield best(tries)
    if specimen is not None:
        found, cost = kept(folder / "templates.json", lambda: templates(micrographs, specimen))
        yield "template matching", score_picker(micrographs, found, None), cost


def templates(micrographs: list[Labelled], specimen: Specimen) -> tuple[list[Found], programs.Cost]:
    """Match templates, in this process: its memory is not told apart."""
    started = time.process_time()
    found = [pick_with_templates(one, specimen) for one in micrographs]
    return found, programs.Cost(cpu_seconds=time.process_time() - started)


def best(tries: list[Result]) -> Result:
    return max(tries, key=lambda entry: entry[1].strict_average_precision)


def kept(
    path: Path, make: Callable[[], tuple[list[Found], programs.Cost]]
) -> tuple[list[Found], programs.Cost]:
    """Return what a peer gave in an earlier run, or run it now."""
    if not path.is_file():
        found, cost = make()
        picks = [[one.points_yx.tolist(), one.score.tolist()] for one in found]
        path.write_text(json.dumps({"picks": picks, "cost": asdict(cost)}))
    content = json.loads(path.read_text())
    found = [Found(np.array(points).reshape(-1, 2), np.array(score)) for points, score in content["picks"]]
    return found, programs.Cost(**content["cost"])


if __name__ == "__main__":
    main()
