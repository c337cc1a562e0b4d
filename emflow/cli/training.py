"""What the training commands share: from their options to a trained network in a folder."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emflow.cli.progress import command_line, say
from emflow.cli.training_options import Simulation, TomogramSimulation, TrainingRun
from emflow.errors import SettingError
from emflow.io.atomic_model_files import atomic_model_files, check_learnable
from emflow.io.atomic_models import read_atomic_models
from emflow.io.checkpoint import load_checkpoint, save_checkpoint
from emflow.io.curves import write_curves
from emflow.io.files import sha256, write_text
from emflow.io.gpus import take_device
from emflow.io.model import load_model
from emflow.kept_apart import NAMES
from emflow.networks import UNet, build
from emflow.resources import model_folder
from emflow.simulation import ParticleLibrary
from emflow.training import processes
from emflow.training.batches import Batch, LossOf, mean_loss
from emflow.training.growing import grown
from emflow.training.scenes import SceneStream
from emflow.training.settings import TrainingConfig

# Batches that a training never learns from, by whose loss it is told how it goes.
VALIDATION_BATCHES = 2


@dataclass(frozen=True)
class Material:
    """What a training learns from: the batch of a step, and batches that it never sees."""

    batch_of_step: Callable[[int], Batch]
    validation: Sequence[Batch]


@contextmanager
def simulated(
    make_sample: Callable[[tuple[int, int]], Any],
    make_batch: Callable[[Sequence[Any], int, np.random.Generator], Batch],
    config: TrainingConfig,
    *,
    workers: int,
    window: int | None = None,
    crops: float = 8.0,
    kept_apart: int | None = None,
) -> Iterator[Material]:
    """Give simulated scenes to learn from, and other ones to validate with: none is in both.

    ``window`` scenes (8 batches when not given) are at hand at a time; each is cropped ``crops`` times. So
    many are ``kept_apart`` for a batch to validate with (one a crop when not given).
    """
    stream = SceneStream(
        make_sample,
        seed=config.seed,
        window=window or 8 * config.batch,
        per_step=config.batch / crops,
        workers=workers,
    )

    def batch_of_step(step: int) -> Batch:
        random = np.random.default_rng((config.seed, step, 1))
        return make_batch(stream.draw(step, config.batch), config.crop_pixels, random)

    random = np.random.default_rng((config.seed, 7))
    validation = []
    count = kept_apart or config.batch
    # Tomograms take minutes, in which nothing else would be said.
    if processes.leads():
        say("simulate", f"{VALIDATION_BATCHES * count} to validate with, then {stream.window} to learn from")
    for number in range(VALIDATION_BATCHES):
        first = 2**31 + number * config.batch
        apart = [make_sample((config.seed, first + index)) for index in range(count)]
        crops_of = [apart[index % count] for index in range(config.batch)]
        validation.append(make_batch(crops_of, config.crop_pixels, random))
    try:
        yield Material(batch_of_step, validation)
    finally:
        stream.close()


def simulated_tomograms(
    make_sample: Callable[[tuple[int, int]], Any],
    make_batch: Callable[[Sequence[Any], int, np.random.Generator], Batch],
    config: TrainingConfig,
    *,
    simulation: TomogramSimulation,
) -> AbstractContextManager[Material]:
    """Give simulated tomograms as `simulated` gives scenes: each is cropped often."""
    return simulated(
        make_sample,
        make_batch,
        config,
        workers=simulation.workers,
        window=simulation.window,
        crops=simulation.crops,
        kept_apart=2,
    )


def train(
    *,
    task: str,
    architecture: Mapping[str, Any],
    config: TrainingConfig,
    material: Material,
    loss: LossOf,
    run: TrainingRun,
    sources: Mapping[str, Any],
) -> tuple[UNet, dict[str, Any]]:
    """Train a network, with checkpoints and a curve in the run's output folder.

    Returns
    -------
    tuple[UNet, dict[str, Any]]
        The averaged network on the CPU, and how it was made, for the model card.
    """
    # Lightning takes seconds to import, and this module is imported for less than a training, too.
    from emflow.training.learner import Learner
    from emflow.training.loop import fit

    team = processes.join(run.device)
    chosen = team.device if team else take_device(run.device)
    leads = team is None or team.leads
    torch.manual_seed(config.seed)
    if run.init_from is None:
        network = build(architecture)
    else:
        parent, card = load_model(starting_model(run.init_from), task)
        wanted = architecture["channels"]
        if {**card.architecture, "channels": wanted} != architecture:
            raise SettingError(
                f"{run.init_from}: its architecture is {card.architecture}, not {dict(architecture)}"
            )
        try:
            network = grown(parent, tuple(wanted))
        except ValueError as error:
            raise SettingError(f"{run.init_from}: {error}; give --channels as many and as wide") from error
    learner = Learner(network, config, loss)
    hours_before = 0.0
    # From which step on the schedule was laid out for how many steps.
    plan = [[0, config.steps]]
    settings = asdict(config)
    made_with = {**settings, **sources}
    checkpoint = load_checkpoint(run.output) if run.resume else None
    # More or fewer steps are a new schedule for the rest; anything else would be another training.
    if checkpoint is not None and {**checkpoint["made_with"], "steps": config.steps} != made_with:
        if not run.restart:
            raise SettingError(
                f"{run.output}: its checkpoint was made with other settings or data; use the same, or "
                "another --output"
            )
        if leads:
            say(task, "the checkpoint was made with other settings or data: starting from nothing")
        checkpoint = None
    if checkpoint is not None:
        learner.restore(checkpoint)
        plan = [list(stretch) for stretch in checkpoint["plan"]]
        if plan[-1][1] != config.steps:
            plan.append([learner.step, config.steps])
        hours_before = checkpoint["hours"]
        if leads:
            say(task, f"going on from step {learner.step}")
    started = time.monotonic()

    def hours() -> float:
        return hours_before + (time.monotonic() - started) / 3600

    def on_report(learner: Learner, seconds: float) -> None:
        step, mean, rate, apart = learner.curve[-1]
        losses = f"loss {mean:.4f}, of scenes kept apart {apart:.4f}"
        say(task, f"step {step}/{config.steps}, {losses}, rate {rate:.2e}, {seconds:.0f} s")
        kept = {"made_with": made_with, "hours": hours(), "plan": plan}
        save_checkpoint(run.output, {**learner.to_dict(), **kept})

    fit(
        learner,
        material.batch_of_step,
        device=chosen,
        team=team,
        validate=lambda average: mean_loss(average, material.validation, loss),
        on_report=on_report,
    )
    if not leads:
        sys.exit(0)  # the first process goes on alone: it scores the network, and writes it
    write_curves(run.output, learner.curve)
    if learner.step < config.steps:
        say(
            task,
            f"no gain in {config.patience} reports: stopped after {learner.step} of {config.steps} steps",
        )
    made = {
        "command": command_line(),
        "config": settings,
        "steps_done": learner.step,
        "steps_planned_from_step": plan,
        "seed": config.seed,
        "hours": round(hours(), 2),
        "device": torch.cuda.get_device_name() if chosen.type == "cuda" else "CPU",
        "processes": team.size if team else 1,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "parent_sha256": card.weights_sha256 if run.init_from is not None else None,
        **sources,
    }
    return learner.average, made


def starting_model(init_from: Path) -> Path:
    """Return the folder that --init-from names: a model folder, or a shipped model by its name."""
    here = (init_from / "card.json").is_file()
    return init_from if here else model_folder(str(init_from))


def write_metrics(output: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json``."""
    write_text(output / "metrics.json", json.dumps(metrics, indent=1) + "\n")


def library_of(simulation: Simulation) -> tuple[ParticleLibrary, dict[str, Any]]:
    """Return the training library, with the atomic models of a folder, and what to say of it in the card.

    Raises
    ------
    SettingError
        If the folder holds structures that are kept apart, unless these are allowed.
    """
    if simulation.models is None:
        return ParticleLibrary("train"), {"data": "simulated, procedural shapes alone"}
    if not simulation.allow_kept_apart:
        check_learnable(atomic_model_files(simulation.models))
    found = read_atomic_models(simulation.models)
    library = ParticleLibrary("train", models=[structure for structure, _ in found])
    return library, {
        "data": "simulated, procedural shapes and atomic models",
        "atomic_models": {structure.name: sha256(path) for structure, path in found},
        "kept_apart": [] if simulation.allow_kept_apart else list(NAMES),
    }
