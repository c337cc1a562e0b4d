"""Denoisers side by side on the same simulated micrographs: emflow, topaz, and the best linear filters.

    python benchmarks/denoising.py --work FOLDER [--models FOLDER] [--denoiser MODEL] [--topaz PROGRAM]

At each defocus one micrograph of each specimen that training never saw. All answers are compared at 5 A a
pixel with the micrograph's expectation, in detail finer than 80 A: the gain in signal-to-noise over the image
as recorded, and the change of the Fourier ring correlation with the truth in the rings that have signal.
topaz gets the micrograph as recorded, and its answer is Fourier-cropped; benchmarks/picking.py says how to
install it. One thread.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import mrcfile
import numpy as np
import programs

from emflow.cli.evaluate import DEFOCI_ANGSTROM, MADE_UP, table
from emflow.evaluation.denoising import LINEAR_FILTERS, noisy_pair, score_denoiser
from emflow.evaluation.specimens import Specimen
from emflow.fourier import fourier_resize
from emflow.io.atomic_models import read_atomic_models
from emflow.io.mrc import write_mrc
from emflow.preprocessing import flatten_background
from emflow.resources import model_folder

BACKGROUND_SIGMA_PIXELS = 200.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for micrographs and answers")
    parser.add_argument("--models", type=Path, help="atomic models held apart; made-up particles without it")
    parser.add_argument("--denoiser", default="denoiser")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--pixel-size", type=float, default=2.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--topaz", help="its program")
    options = parser.parse_args()
    if options.models is None:
        specimens = [Specimen.procedural(number) for number in MADE_UP]
    else:
        specimens = [Specimen.of_model(structure) for structure, _ in read_atomic_models(options.models)]
    rows = []
    for defocus in DEFOCI_ANGSTROM:
        folder = options.work / f"defocus_{defocus:.0f}"
        pairs = [
            noisy_pair(
                specimen,
                defocus_angstrom=defocus,
                seed=options.seed,
                side=options.side,
                pixel_size_angstrom=options.pixel_size,
            )
            for specimen in specimens
        ]
        for number, pair in enumerate(pairs):
            write_mrc(folder / "micrographs" / f"pair_{number:02d}.mrc", pair.recorded, options.pixel_size)
        answers = []
        for name, apply in LINEAR_FILTERS:
            answers.append((name, [apply(pair.noisy, pair.clean) for pair in pairs], programs.Cost()))
        model = str(model_folder(options.denoiser).resolve())
        answers.append(("emflow", *programs.emflow_denoise(folder, model, options.pixel_size)))
        if options.topaz:
            cost = programs.topaz_denoise(folder, options.topaz)
            images = []
            for number, pair in enumerate(pairs):
                image = np.array(mrcfile.read(folder / "topaz" / f"pair_{number:02d}.mrc"), dtype=np.float32)
                small = fourier_resize(image, pair.clean.shape)
                images.append(flatten_background(small, BACKGROUND_SIGMA_PIXELS))
            answers.append(("topaz unet", images, cost))
        for name, images, cost in answers:
            rows.append(
                {
                    "defocus um": defocus / 1e4,
                    "denoiser": name,
                    **asdict(score_denoiser(pairs, images)),
                    "CPU s a micrograph": cost.cpu_seconds / len(pairs) if cost.cpu_seconds else float("nan"),
                    "peak MiB": f"{cost.peak_mib:.0f}" if cost.peak_mib else "",
                }
            )
    print(table(rows))
    (options.work / "denoising.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
