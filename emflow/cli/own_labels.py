"""A user's labels of some slices: what the segmenter learns from, and how it does on those kept apart."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.cli.tomograms import StoredTomogram, check_pixel_size, failed_reason, read_volume_row
from emflow.cli.training import Material, starting_model, train, write_metrics
from emflow.cli.training_options import TrainingRun
from emflow.errors import BadInputError, SettingError
from emflow.io.files import sha256
from emflow.io.index import OK, VolumeRow
from emflow.io.label_volumes import LabelVolume, open_label_volume, read_label_names
from emflow.io.model import load_model, save_model
from emflow.io.tomograms import open_tomogram
from emflow.model_card import SEGMENT, ModelCard
from emflow.networks import build
from emflow.segmentation import measured_standardisation, mirrored, standardise
from emflow.tomogram_classes import NOT_LABELLED
from emflow.training import segmenter
from emflow.training.batches import Batch
from emflow.training.settings import TrainingConfig
from emflow.training.sparse_labels import (
    LabelledSlice,
    class_overlaps,
    labelled_batch,
    split,
    value_table,
)

Read = Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class LabelFiles:
    """The files that a user names: a tomogram each, its labels, and what values mean."""

    tomograms: Sequence[Path]
    labels: Sequence[Path]
    names: Path | None
    not_labelled: int

    def read(self, card: ModelCard, slices: int) -> list[LabelledSlice]:
        """Read the labelled slices of all tomograms, each with its neighbours.

        Raises
        ------
        SettingError
            When labels and tomograms do not fit each other or the segmenter, or no slice is labelled.
        """
        if len(self.tomograms) != len(self.labels):
            raise SettingError(
                f"--tomogram and --labels go in pairs: {len(self.tomograms)} of the one, {len(self.labels)} "
                "of the other"
            )
        names = None if self.names is None else read_label_names(self.names)
        found = []
        for tomogram, labels in zip(self.tomograms, self.labels, strict=True):
            with open_label_volume(labels) as volume:
                found += self._read_one(tomogram, labels, volume, names or volume.names, card, slices)
        return found

    def _read_one(
        self,
        tomogram: Path,
        labels: Path,
        volume: LabelVolume,
        names: dict[int, str] | None,
        card: ModelCard,
        slices: int,
    ) -> list[LabelledSlice]:
        with open_image(tomogram, card.pixel_size_angstrom) as (shape, read):
            if shape != volume.shape:
                sizes = [" x ".join(map(str, one[::-1])) for one in (volume.shape, shape)]
                raise SettingError(
                    f"{labels} has {sizes[0]} voxels, and {tomogram} {sizes[1]}: they must be the same"
                )
            silent = (self.not_labelled, NOT_LABELLED)
            values, planes = set[int](), {}
            for z in range(shape[0]):
                plane = volume.read(z)
                values |= set(np.unique(plane).tolist())
                if not np.isin(plane, silent).all():
                    planes[z] = plane
            table = value_table(
                values, names, card.classes or (), not_labelled=self.not_labelled, source=str(labels)
            )
            if not planes:
                every = " or ".join(map(str, sorted(values)))
                raise SettingError(
                    f"{labels}: no slice is labelled: every voxel is {every}, "
                    f"and {self.not_labelled} is not labelled"
                )
            standards = measured_standardisation(read, shape[0])
            radius = slices // 2
            result = []
            for z, plane in planes.items():
                around = mirrored(np.arange(z - radius, z + radius + 1), shape[0])
                low, high = int(around.min()), int(around.max()) + 1
                slab = standardise(read(low, high), *standards)[around - low].astype(np.float16)
                known = np.full(plane.shape, NOT_LABELLED, dtype=np.uint8)
                for value, meaning in table.items():
                    known[plane == value] = meaning
                result.append(LabelledSlice(f"{_called(tomogram)} {z}", slab, known))
            return result

    @property
    def sources(self) -> dict[str, Any]:
        """What the model's card says of them; the labels' content decides what a checkpoint was made from."""
        return {
            "data": "labelled slices of " + ", ".join(_called(one) for one in self.tomograms),
            "labels": [_digest(one) for one in self.labels],
            "label_names": None if self.names is None else sha256(self.names),
            "not_labelled": self.not_labelled,
        }


@contextmanager
def open_image(path: Path, pixel_size_angstrom: float | None) -> Iterator[tuple[tuple[int, int, int], Read]]:
    """Open a tomogram (MRC, Zarr, or a session's table): its shape (z, y, x), and what reads its slices.

    Raises
    ------
    SettingError
        If it cannot be read, or its voxels are not those that the segmenter was trained on.
    """
    try:
        if path.suffix == ".tsv":
            row = read_volume_row(path)
            if (reason := failed_reason(row)) is not None:
                raise BadInputError(f"was left out: {reason}")
            check_pixel_size(row, pixel_size_angstrom)
            stored = StoredTomogram.open(row, path.parent)
            yield stored.shape, partial(stored.read, stored.channels[0])
            return
        with open_tomogram(path) as tomogram:
            shape, pixel = tomogram.header.shape, tomogram.header.pixel_size_angstrom
            check_pixel_size(VolumeRow(path.name, OK, pixel_size_angstrom=pixel), pixel_size_angstrom)
            yield shape, lambda first, last: tomogram.read(first, last - first)
    except (BadInputError, OSError) as error:
        raise SettingError(f"{path} {error}") from None


def own_material(
    learn: Sequence[LabelledSlice],
    apart: Sequence[LabelledSlice],
    config: TrainingConfig,
    stride: int,
    replay: Material | None,
    replayed: int,
) -> Material:
    """Return batches of labelled crops, ``replayed`` of each from a simulation."""
    sides = [side for one in (*learn, *apart) for side in one.labels.shape]
    crop = min(config.crop_pixels, min(sides) // stride * stride)
    if crop < (config.crop_pixels if replay else stride):
        raise SettingError(f"--crop-pixels {config.crop_pixels}: the tomogram's slices are {min(sides)} wide")

    def batch_of_step(step: int) -> Batch:
        random = np.random.default_rng((config.seed, step, 23))
        own = labelled_batch(learn, crop, config.batch - replayed, random)
        if replay is None:
            return own
        return tuple(torch.cat(pair) for pair in zip(own, replay.batch_of_step(step), strict=True))

    random = np.random.default_rng((config.seed, 24))
    validation = [labelled_batch(apart, crop, config.batch, random) for _ in range(4)] if apart else []
    return Material(batch_of_step, validation)


def train_on_labels(
    files: LabelFiles,
    card: ModelCard,
    config: TrainingConfig,
    *,
    run: TrainingRun,
    replay: float,
    simulate: Callable[..., AbstractContextManager[Material]],
) -> None:
    """Train a segmenter on labelled slices, and say how well it does on those kept apart, before and after.

    Parameters
    ----------
    card
        Of a segmenter of random weights; with ``run.init_from`` that model's own takes its place.
    replay
        Share of each batch that comes from ``simulate``, given how a batch is made and the settings.

    Raises
    ------
    SettingError
        When files, segmenter and settings do not fit each other; see `LabelFiles.read`.
    """
    if not 0 <= replay < 1:
        raise SettingError(f"--replay {replay:g}: a share from 0 to below 1")
    before = None
    if run.init_from is not None:
        before, card = load_model(starting_model(run.init_from), SEGMENT)
    slices = int(card.architecture["in_channels"])
    found = files.read(card, slices)
    learn, apart = split(found)
    say(SEGMENT, f"{len(learn)} labelled slices to learn from, {len(apart)} to judge by")
    if not apart:
        config = replace(config, patience=0)  # nothing says when to stop
    replayed = round(config.batch * replay)
    stride = build(card.architecture).stride
    make_batch = partial(segmenter.segmenter_batch, slices=slices, axes="z", stride=stride)
    simulation: AbstractContextManager[Material | None] = nullcontext()
    if replayed:
        simulation = simulate(make_batch, replace(config, batch=replayed))
    with simulation as simulated:
        network, made = train(
            task=SEGMENT,
            architecture=card.architecture,
            config=config,
            material=own_material(learn, apart, config, stride, simulated, replayed),
            loss=segmenter.segmenter_loss,
            run=run,
            sources={**files.sources, **segmenter.TOLD, "replay": replay},
        )
    scores: dict[str, Any] = {"labelled_slices": len(found), "kept_apart": [one.name for one in apart]}
    if apart:
        names = card.classes or ()
        scores["dice"] = class_overlaps(network, apart, names)
        if before is not None:
            scores["dice_as_it_came"] = class_overlaps(before, apart, names)
        for name, value in scores["dice"].items():
            came = scores.get("dice_as_it_came", {}).get(name)
            before_it = "" if came is None else f", {came} before"
            say(SEGMENT, f"{name}: Dice {value} on what was kept apart{before_it}")
    save_model(run.output, network, replace(card, training=made, scores=scores, notes=OWN_NOTES))
    write_metrics(run.output, scores)
    say(SEGMENT, f"segment.model: {run.output}")


OWN_NOTES = (
    "Works at 10 A a voxel on tomograms as reconstructed (protein dark), slice by slice. Trained on slices "
    "that one user labelled: for tomograms like those."
)


def _called(tomogram: Path) -> str:
    """Return what a tomogram is called: its file's name, or for a session's table that of its folder."""
    return tomogram.parent.name if tomogram.suffix == ".tsv" else tomogram.name


def _digest(path: Path) -> str:
    """Return one hash of a file, or of all files of a folder."""
    if path.is_file():
        return sha256(path)
    files = sorted(one for one in path.rglob("*") if one.is_file())
    lines = "\n".join(f"{one.relative_to(path)} {sha256(one)}" for one in files)
    return hashlib.sha256(lines.encode()).hexdigest()
