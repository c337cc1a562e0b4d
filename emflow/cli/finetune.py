"""``emflow finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emflow.cli.training_options import ParentModel, Seed, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emflow.training.finetuning import PickedMicrograph

FEWEST_PICKS = 30
FEWEST_MICROGRAPHS = 2


def finetune(
    picks: list[Path],
    /,
    *,
    output: Path,
    session: str | None = None,
    model: ParentModel = "picker",
    complete: bool = False,
    expected_particles: float | None = None,
    diameter_angstrom: float | None = None,
    steps: Steps = 300,
    encoder_rate: float = 1.0,
    seed: Seed = 17,
    threads: int = 2,
    device: str = "auto",
) -> None:
    """Teach the picker a specimen from picks of a few of its micrographs; run it in the session's folder.

    A fifth of the picked micrographs, at least one, is kept to judge by. The last state of the training
    counts, unless an earlier one, or the model as it came, is better there by more than one standard error.
    Name the output folder in ``pick.model``.

    Parameters
    ----------
    picks
        STAR files: one coordinate file per micrograph, or tables with rlnMicrographName, such as RELION's
        particles.star after a class selection. In pixels of the micrographs.
    output
        Model folder to write, with metrics.json.
    session
        Which of the folder's sessions; not needed when it has one.
    complete
        All particles of these micrographs are picked. Without it they are taken for some of them.
    expected_particles
        About how many particles a micrograph has; when not given and the picks are not complete, as many as
        the model finds.
    diameter_angstrom
        Of the particle; the session's when not given.
    encoder_rate
        Share of the learning rate for the network's encoder; 0 keeps it as it came.
    threads
        CPU threads.
    device
        auto, cpu or cuda.
    """
    import copy
    import time
    from dataclasses import replace

    import numpy as np
    import torch

    from emflow.cli.progress import command_line, say
    from emflow.cli.training import write_metrics
    from emflow.errors import SettingError
    from emflow.io.gpus import take_device
    from emflow.io.model import load_model, save_model
    from emflow.model_card import PICK
    from emflow.resources import model_folder
    from emflow.simulation import ParticleLibrary
    from emflow.training import finetuning
    from emflow.training.batches import Batch
    from emflow.training.learner import Learner
    from emflow.training.loop import fit
    from emflow.training.picker import PickerSamples
    from emflow.training.scenes import SceneStream
    from emflow.training.settings import TrainingConfig

    if complete and expected_particles is not None:
        raise SettingError("--complete and --expected-particles exclude each other")
    if expected_particles is not None and expected_particles <= 0:
        raise SettingError(f"--expected-particles {expected_particles:g}: must be positive")
    started = time.monotonic()
    torch.set_num_threads(threads)
    chosen = take_device(device)
    network, card = load_model(model_folder(model), PICK)
    parent_sha256 = card.weights_sha256
    micrographs, diameter = _read(picks, session, diameter_angstrom)
    if not complete:
        if expected_particles is not None:
            expected = [expected_particles] * len(micrographs)
        else:
            expected = [finetuning.particles_found(network, card, one, diameter) for one in micrographs]
        micrographs = [
            replace(one, missing=max(0.0, count - len(one.picks_yx)))
            for one, count in zip(micrographs, expected, strict=True)
        ]
    learn, judge_by = finetuning.split(micrographs, seed)
    say(
        "finetune",
        f"{sum(len(one.picks_yx) for one in learn)} picks on {len(learn)} micrographs to learn from, "
        f"{sum(len(one.picks_yx) for one in judge_by)} on {len(judge_by)} to judge by",
    )
    config = TrainingConfig(
        steps=steps,
        batch=8,
        crop_pixels=192,
        learning_rate=5e-4,
        average_decay=0.98,
        seed=seed,
        encoder_rate=encoder_rate,
    )
    samples = [finetuning.picked_sample(one, diameter, card.pixels_per_diameter or 24.0) for one in learn]
    shortest = min(min(sample.image.shape) for sample in samples)
    if shortest < network.stride:
        raise SettingError(f"diameter {diameter:g} A: a micrograph is then {shortest} pixels wide, too few")
    side = min(config.crop_pixels, shortest // network.stride * network.stride)
    simulated = round(config.batch * finetuning.REPLAY_SHARE)
    stream = SceneStream(
        PickerSamples(ParticleLibrary("train"), shape=(256, 256)), seed=seed, window=16, per_step=0.1
    )
    before = finetuning.judge(network, card, judge_by, diameter)
    # Step, how good, and the network; the model as it came first.
    states = [(0, before, copy.deepcopy(network))]
    say("finetune", f"the general model on the micrographs kept apart: {before:.3f}")

    def batch_of_step(step: int) -> Batch:
        random = np.random.default_rng((seed, step, 6))
        scenes = stream.draw(step, simulated)
        return finetuning.finetuning_batch(samples, scenes, config.batch - simulated, side, random)

    def on_report(learner: Learner, _seconds: float) -> None:
        average = copy.deepcopy(learner.average).cpu()
        value = finetuning.judge(average, card, judge_by, diameter)
        say(
            "finetune",
            f"step {learner.step}/{steps}, loss {learner.curve[-1][1]:.4f}, kept apart {value:.3f}",
        )
        states.append((learner.step, value, average))

    try:
        fit(
            Learner(copy.deepcopy(network), config, finetuning.finetuning_loss),
            batch_of_step,
            device=chosen,
            report_every=max(1, min(50, steps)),
            on_report=on_report,
        )
    finally:
        stream.close()
    picks_apart = sum(len(one.picks_yx) for one in judge_by)
    at, after, kept = states[finetuning.state_to_keep([value for _, value, _ in states], picks_apart)]
    card = finetuning.with_threshold(kept, card, [*learn, *judge_by], diameter)
    minutes = (time.monotonic() - started) / 60
    metrics = {
        "measure": "average precision" if complete else "share of the picks found among as many as expected",
        "general_model": round(before, 4),
        "finetuned": round(after, 4),
        "step": at,
        "micrographs": len(micrographs),
        "picks": sum(len(one.picks_yx) for one in micrographs),
        "minutes": round(minutes, 1),
    }
    made = {
        "command": command_line(),
        "parent_sha256": parent_sha256,
        "seed": seed,
        "steps": steps,
        "data": f"{metrics['picks']} picks on {len(micrographs)} micrographs, and simulated scenes",
    }
    save_model(output, kept, replace(card, training=made, scores=metrics, notes=NOTES))
    write_metrics(output, metrics)
    if at == 0:
        say(
            "finetune",
            "every step did clearly worse on the micrographs kept apart: the weights stay as they were",
        )
    say("finetune", f"{before:.3f} before, {after:.3f} after, {minutes:.1f} minutes; pick.model: {output}")


NOTES = (
    "Fine-tuned on picks of one specimen: for that specimen. The threshold is fitted to these picks; the "
    "figure of merit keeps the general model's calibration."
)


def _read(
    picks: Sequence[Path], session: str | None, diameter_angstrom: float | None
) -> tuple[list[PickedMicrograph], float]:
    """Return the picked micrographs of a session with their picks in stored pixels, and the diameter."""
    import numpy as np

    from emflow.errors import SettingError
    from emflow.io.index import StoreRow, accepted, read_index
    from emflow.io.locations import find_store
    from emflow.io.picks import read_picks
    from emflow.io.plan import RESULTS
    from emflow.io.settings import read_sessions
    from emflow.io.store import read_image
    from emflow.training.finetuning import PickedMicrograph

    sessions = {one.session: one for one in read_sessions() if not one.is_tomography}
    name = session or next(iter(sessions), "")
    if name not in sessions or (session is None and len(sessions) > 1):
        raise SettingError(f"--session: name one of {', '.join(sessions)}")
    tables = sorted((RESULTS / "spa" / name).glob("batch*/tiles.tsv"))
    if not tables:
        raise SettingError(f"{RESULTS / 'spa' / name}: no tiles yet; run emflow run first")
    places = {
        row.name: (table.parent, row) for table in tables for row in accepted(read_index(table, StoreRow))
    }
    found = read_picks(picks, [row for _, row in places.values()])
    count = sum(map(len, found.values()))
    if count < FEWEST_PICKS or len(found) < FEWEST_MICROGRAPHS:
        raise SettingError(
            f"{count} picks on {len(found)} micrographs are too few: at least {FEWEST_PICKS} on "
            f"{FEWEST_MICROGRAPHS}; some 100 on 5 do well"
        )
    micrographs = []
    for micrograph, points in sorted(found.items()):
        folder, row = places[micrograph]
        scale = np.array(
            [(row.height or 0) / (row.unbinned_height or 1), (row.width or 0) / (row.unbinned_width or 1)]
        )
        micrographs.append(
            PickedMicrograph(
                name=micrograph,
                image=read_image(find_store(folder, row.store), row.position or 0),
                pixel_size_angstrom=row.pixel_size_angstrom or 0.0,
                picks_yx=points * scale,
            )
        )
    return micrographs, diameter_angstrom or sessions[name].diameter_angstrom or 0.0  # never without one
