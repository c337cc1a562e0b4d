"""How far the picker's own word can be trusted: its guess at the diameter, and what it calls unfamiliar.

    python benchmarks/trust.py [--specimens 20] [--models FOLDER]

Of made-up particles that training never saw (and the atomic models of --models), two micrographs each, a
clean and a contaminated one: how often the guessed diameter is within 20 and within 30 % of the true one,
and how often a micrograph is said to be unlike the training although the same simulator made it. Of the real
micrographs of beta-galactosidase, where the folder of shared data (EMFLOW_SHARED, else ../shared) is there,
what is said.
"""

import argparse
import os
from pathlib import Path

import beta_galactosidase
import numpy as np
import torch

from emflow.diameter import guess_diameter
from emflow.evaluation.picking import stored_image
from emflow.evaluation.specimens import Labelled, Specimen, simulate
from emflow.familiarity import unfamiliar
from emflow.io.atomic_models import read_atomic_models
from emflow.io.model import load_model
from emflow.picking import working_image
from emflow.resources import model_folder

# Seeds of made-up particles that no choice in emflow was made with.
FIRST_SPECIMEN = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--specimens", type=int, default=20)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--picker", default="picker")
    parser.add_argument("--side", type=int, default=1152)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, card = load_model(model_folder(options.picker), "pick")

    def said(one: Labelled) -> str:
        image, pixel_size = stored_image(one)
        seen = working_image(
            image,
            image_pixel_size_angstrom=pixel_size,
            diameter_angstrom=one.diameter_angstrom,
            card=card,
        )
        return unfamiliar(seen, card.training_ranges or {})

    specimens = [Specimen.procedural(FIRST_SPECIMEN + number) for number in range(options.specimens)]
    if options.models is not None:
        specimens += [Specimen.of_model(structure) for structure, _ in read_atomic_models(options.models)]
    ratios, strange, micrographs = [], 0, 0
    for specimen in specimens:
        both = [
            simulate(specimen, condition, seed=9, shape=(options.side, options.side))
            for condition in ("clean", "contaminated")
        ]
        guess = guess_diameter([stored_image(one) for one in both], network, card).diameter_angstrom
        ratios.append((guess or np.nan) / specimen.diameter_angstrom)
        strange += sum(bool(said(one)) for one in both)
        micrographs += len(both)
        print(
            f"{specimen.name}: true {specimen.diameter_angstrom:.0f} A, guessed {guess or 'none'}", flush=True
        )
    off = np.abs(np.array(ratios) - 1)
    print(
        f"\n{len(ratios)} specimens: {np.mean(off <= 0.2):.2f} within 20 %, {np.mean(off <= 0.3):.2f} within "
        f"30 %, {np.mean(np.isnan(off)):.2f} without a guess"
    )
    print(f"{strange} of {micrographs} simulated micrographs are called unlike the training")
    shared = Path(os.environ.get("EMFLOW_SHARED", Path(__file__).parents[2] / "shared"))
    for one in beta_galactosidase.micrographs(shared):
        print(f"beta-galactosidase {one.name}: {said(one) or 'as in training'}")


if __name__ == "__main__":
    main()
