"""What fine-tuning gains on a specimen that the general picker is weak on.

    python benchmarks/finetuning.py --work FOLDER [--model-file FILE] [--picks 20] [--complete]

Simulates micrographs of one particle that training never saw (a made-up one without --model-file), gives
`emflow finetune` some picks on five of them (drawn at random from the truth; all of it with --complete), and
scores both models on others. Half of these micrographs are contaminated.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import programs

from emflow.cli.evaluate import table
from emflow.evaluation.picking import score_picker
from emflow.evaluation.specimens import Labelled, Specimen, simulate
from emflow.io.atomic_models import read_atomic_model
from emflow.io.model import read_card
from emflow.io.mrc import write_mrc
from emflow.io.star import write_star
from emflow.resources import model_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model-file", type=Path, help="an atomic model, PDB or mmCIF")
    parser.add_argument("--picker", default="picker", help="the general model")
    parser.add_argument("--picks", type=int, default=20, help="on each of five micrographs")
    parser.add_argument("--complete", action="store_true", help="give all particles instead")
    parser.add_argument("--test", type=int, default=6, help="micrographs to score on")
    parser.add_argument("--side", type=int, default=1280)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    if options.model_file is None:
        specimen = Specimen.procedural(3017)
    else:
        specimen = Specimen.of_model(read_atomic_model(options.model_file))
    learn = micrographs(specimen, 5, options.side, first=0)
    test = micrographs(specimen, options.test, options.side, first=100)
    for folder, several in (("learn", learn), ("test", test)):
        for one in several:
            path = options.work / folder / "micrographs" / f"{one.name}.mrc"
            write_mrc(path, one.image, one.pixel_size_angstrom)
    pixel_size, diameter = learn[0].pixel_size_angstrom, learn[0].diameter_angstrom
    programs.emflow_tiles(options.work / "learn", pixel_size, diameter, programs.Cost())
    session = options.work / "learn" / "session"
    random = np.random.default_rng(7)
    for one in learn:
        count = len(one.centres_yx) if options.complete else min(options.picks, len(one.centres_yx))
        chosen = random.permutation(one.centres_yx)[:count]
        frame = pd.DataFrame({"rlnCoordinateX": chosen[:, 1], "rlnCoordinateY": chosen[:, 0]})
        write_star(session / "picks" / f"{one.name}_picks.star", {"": frame})
    cost = programs.Cost()
    expected = float(np.mean([len(one.centres_yx) for one in learn]))
    labels = "--complete" if options.complete else f"--expected-particles {expected:.0f}"
    cost.run(
        session,
        programs.EMFLOW,
        f"finetune --output mine {labels} --steps {options.steps} --threads 1 --model",
        str(model_folder(options.picker).resolve()),
        *(f"picks/{one.name}_picks.star" for one in learn),
    )
    rows = []
    for name, model in (("general", model_folder(options.picker)), ("fine-tuned", session / "mine")):
        found, _ = programs.emflow_pick(options.work / "test", str(model.resolve()), pixel_size, diameter)
        scores = score_picker(test, found, read_card(model).threshold)
        rows.append({"specimen": specimen.name, "model": name, **asdict(scores)})
    print(table(rows))
    metrics = json.loads((session / "mine" / "metrics.json").read_text())
    print(f"\n{metrics}\n{cost.cpu_seconds / 60:.1f} CPU minutes, {cost.peak_mib:.0f} MiB")


def micrographs(specimen: Specimen, count: int, side: int, *, first: int) -> list[Labelled]:
    """Simulate clean and contaminated micrographs in turn, sorted by name."""
    conditions = ("clean", "contaminated")
    return [
        replace(
            simulate(specimen, conditions[number % 2], seed=first + number, shape=(side, side)),
            name=f"m{first + number:03d}",
        )
        for number in range(count)
    ]


if __name__ == "__main__":
    main()
