"""``emflow evaluate``: the models on simulated specimens held apart, beside classical methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emflow.evaluation.denoising import DenoiserScores
    from emflow.evaluation.picking import Found, PickerScores
    from emflow.evaluation.specimens import Labelled, Specimen
    from emflow.model_card import ModelCard
    from emflow.networks import UNet
    from emflow.scoring import ScoredPicks

# Seeds of the held-apart particles of the small version: a barrel of rings, a chain, two rings back to back.
MADE_UP = (3001, 3015, 3017)
RELIABLE_FROM = 0.05
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
        Folder of atomic models to simulate instead of made-up particles; those that training saw are refused.
    micrographs
        Micrographs of each particle and condition (clean, crowded, contaminated).
    side
        Height and width of a micrograph in pixels.
    seed
        Of everything simulated.
    threads
        CPU threads.
    output
        Also write the numbers to this JSON file, and beside it reliability.png: of candidates of each figure
        of merit, the share that were particles.
    """
    import json
    from dataclasses import asdict

    import torch

    from emflow.cli.progress import say
    from emflow.errors import SettingError
    from emflow.evaluation.picking import matched, pick_with_network
    from emflow.evaluation.specimens import Specimen
    from emflow.io.atomic_model_files import atomic_model_files
    from emflow.io.atomic_models import read_atomic_models
    from emflow.io.curves import write_reliability
    from emflow.io.files import sha256, write_text
    from emflow.io.model import load_model
    from emflow.model_card import DENOISE, PICK
    from emflow.resources import model_folder
    from emflow.scoring import calibration_error, pool, reliability

    if micrographs < 1:
        raise SettingError(f"--micrographs {micrographs}: at least 1")
    if not 512 <= side <= 8192:
        raise SettingError(f"--side {side}: from 512 to 8192 pixels")
    torch.set_num_threads(threads)
    network, card = load_model(model_folder(picker), PICK)
    denoising_network, denoising_card = load_model(model_folder(denoiser), DENOISE)
    if models is not None:
        for name, path in atomic_model_files(models).items():
            learned = [one.training.get("atomic_models", {}) for one in (card, denoising_card)]
            if sha256(path) in {checksum for files in learned for checksum in files.values()}:
                raise SettingError(f"--models: {path}: picker or denoiser learned from {name}; take it out")
    specimens = (
        [Specimen.procedural(number) for number in MADE_UP]
        if models is None
        else [Specimen.of_model(structure) for structure, _ in read_atomic_models(models)]
    )
    numbers: dict[str, list[dict[str, object]]] = {"picking": [], "denoising": [], "reliability": []}
    scored: list[ScoredPicks] = []
    for specimen in specimens:
        say("evaluate", f"picking {specimen.name}, {specimen.diameter_angstrom:.0f} A")
        labelled = labelled_micrographs(specimen, micrographs, side, seed)
        found = [pick_with_network(one, network, card) for one in labelled]
        scored.append(matched(labelled, found))
        for picker_name, row in picking_rows(specimen, labelled, found, card):
            numbers["picking"].append({"specimen": specimen.name, "picker": picker_name, **asdict(row)})
    for defocus in DEFOCI_ANGSTROM:
        say("evaluate", f"denoising at {defocus / 1e4:g} um")
        for name, scores in denoising_rows(
            specimens, denoising_network, denoising_card, defocus, min(side, 768), seed
        ):
            numbers["denoising"].append({"defocus_angstrom": defocus, "denoiser": name, **asdict(scores)})
    # Candidates below are many, nearly all wrong, and no one's picks.
    picked = pool(scored).above(RELIABLE_FROM)
    bins = reliability(picked.score, picked.is_right)
    numbers["reliability"] = [dict(row) for row in bins]
    print(table(numbers["picking"]))
    print()
    print(table(numbers["denoising"]))
    print()
    print(table(numbers["reliability"]))
    print(f"\nFigures of merit from {RELIABLE_FROM:g} on are off by {calibration_error(bins):.3f} on average")
    if output is not None:
        write_text(output, json.dumps(numbers, indent=1) + "\n")
        write_reliability(output.parent, bins, card.threshold)


def labelled_micrographs(specimen: Specimen, count: int, side: int, seed: int) -> list[Labelled]:
    """Simulate square micrographs of a specimen, so many under each condition."""
    from emflow.evaluation.specimens import CONDITIONS, simulate

    return [
        simulate(specimen, condition, seed=seed * 1000 + number, shape=(side, side))
        for condition in CONDITIONS
        for number in range(count)
    ]


def picking_rows(
    specimen: Specimen, labelled: Sequence[Labelled], found: Sequence[Found], card: ModelCard
) -> Iterator[tuple[str, PickerScores]]:
    """Yield pickers by name with their scores on micrographs of one specimen; emflow's picks are given."""
    from emflow.evaluation.picking import best_of, log_tries, score_picker
    from emflow.evaluation.template_matching import pick_with_templates

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
