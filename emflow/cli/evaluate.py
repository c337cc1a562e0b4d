"""``emflow evaluate``: the models on simulated specimens held apart, beside classical methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emflow.evaluation.denoising import DenoiserScores
    from emflow.evaluation.picking import PickerScores
    from emflow.evaluation.specimens import Specimen
    from emflow.model_card import ModelCard
    from emflow.networks import UNet

# Seeds of the held-apart particles of the small version: a barrel of rings, a chain, two rings back to back.
MADE_UP = (3001, 3015, 3017)
DEFOCI_ANGSTROM = (8000.0, 15000.0, 30000.0)


def evaluate(
    *,
    picker: str = "picker",
    denoiser: str = "denoiser",
    models: Path | None = None,
    micrographs: int = 1,
    side: int = 1024,
    seed: int = 1,
    threads: int = 2,
    output: Path | None = None,
) -> None:
    """Print how well the picker and the denoiser do, on particles that training never saw, as a table.

    Picks are matched with truth one to one, within half a radius (strict) and a radius (lenient). The
    Laplacian of Gaussian has the width that is best on the scored images themselves, and template matching
    is told the particle and each micrograph's CTF. benchmarks/ has the same with other programs.

    Parameters
    ----------
    picker, denoiser
        Shipped model's name, or the path of a model folder.
    models
        Folder of atomic models to simulate instead of made-up particles; none that training saw.
    micrographs
        Micrographs of each particle and condition (clean, crowded, contaminated).
    side
        Height and width of a micrograph in pixels.
    seed
        Of everything simulated.
    threads
        CPU threads.
    output
        Also write the numbers to this JSON file.
    """
    import json
    from dataclasses import asdict

    import torch

    from emflow.cli.progress import say
    from emflow.errors import SettingError
    from emflow.evaluation.specimens import Specimen
    from emflow.io.atomic_models import read_atomic_models
    from emflow.io.files import write_text
    from emflow.io.model import load_model
    from emflow.model_card import DENOISE, PICK
    from emflow.resources import model_folder

    if micrographs < 1:
        raise SettingError(f"--micrographs {micrographs}: at least 1")
    if not 512 <= side <= 8192:
        raise SettingError(f"--side {side}: from 512 to 8192 pixels")
    torch.set_num_threads(threads)
    network, card = load_model(model_folder(picker), PICK)
    denoising_network, denoising_card = load_model(model_folder(denoiser), DENOISE)
    specimens = (
        [Specimen.procedural(number) for number in MADE_UP]
        if models is None
        else [Specimen.of_model(structure) for structure, _ in read_atomic_models(models)]
    )
    numbers: dict[str, list[dict[str, object]]] = {"picking": [], "denoising": []}
    for specimen in specimens:
        say("evaluate", f"picking {specimen.name}, {specimen.diameter_angstrom:.0f} A")
        for picker_name, row in picking_rows(specimen, network, card, micrographs, side, seed):
            numbers["picking"].append({"specimen": specimen.name, "picker": picker_name, **asdict(row)})
    for defocus in DEFOCI_ANGSTROM:
        say("evaluate", f"denoising at {defocus / 1e4:g} um")
        for name, scores in denoising_rows(
            specimens, denoising_network, denoising_card, defocus, min(side, 768), seed
        ):
            numbers["denoising"].append({"defocus_angstrom": defocus, "denoiser": name, **asdict(scores)})
    print(table(numbers["picking"]))
    print()
    print(table(numbers["denoising"]))
    if output is not None:
        write_text(output, json.dumps(numbers, indent=1) + "\n")


def picking_rows(
    specimen: Specimen, network: UNet, card: ModelCard, micrographs: int, side: int, seed: int
) -> Iterator[tuple[str, PickerScores]]:
    """Yield pickers by name with their scores on one specimen."""
    from emflow.evaluation.picking import best_of, log_tries, pick_with_network, score_picker
    from emflow.evaluation.specimens import CONDITIONS, simulate
    from emflow.evaluation.template_matching import pick_with_templates

    labelled = [
        simulate(specimen, condition, seed=seed * 1000 + number, shape=(side, side))
        for condition in CONDITIONS
        for number in range(micrographs)
    ]
    found = [pick_with_network(one, network, card) for one in labelled]
    yield "emflow", score_picker(labelled, found, card.threshold)
    name, scores = best_of(labelled, log_tries())
    yield f"Laplacian of Gaussian, {name}", scores
    found = [pick_with_templates(one, specimen) for one in labelled]
    yield "template matching", score_picker(labelled, found, None)


def denoising_rows(
    specimens: Sequence[Specimen],
    network: UNet,
    card: ModelCard,
    defocus_angstrom: float,
    side: int,
    seed: int,
) -> Iterator[tuple[str, DenoiserScores]]:
    """Yield denoisers by name with their scores at one defocus."""
    from emflow.denoising import denoise_micrograph
    from emflow.evaluation.denoising import LINEAR_FILTERS, noisy_pair, score_denoiser
    from emflow.training.denoiser import PIXEL_SIZE_ANGSTROM

    pairs = [
        noisy_pair(
            specimen,
            defocus_angstrom=defocus_angstrom,
            seed=seed,
            side=side,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
        )
        for specimen in specimens
    ]
    denoised = [
        denoise_micrograph(
            pair.noisy, image_pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, network=network, card=card
        )
        for pair in pairs
    ]
    yield "emflow", score_denoiser(pairs, denoised)
    for name, apply in LINEAR_FILTERS:
        yield name, score_denoiser(pairs, [apply(pair.noisy, pair.clean) for pair in pairs])


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the rows as a Markdown table, their keys as its header; what does not apply stays empty."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if value != value else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3f}"
        return str(value)

    names = [name.replace("_", " ") for name in rows[0]]
    lines = [names, ["---"] * len(names), *([cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
