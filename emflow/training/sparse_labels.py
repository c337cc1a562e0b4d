"""Training the segmenter further on what a user labelled: some slices of a tomogram, or parts of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.errors import SettingError
from emflow.inference import infer
from emflow.networks import UNet
from emflow.scoring_volumes import dice
from emflow.tomogram_classes import NOT_LABELLED
from emflow.training.augment import random_symmetry
from emflow.training.batches import Batch
from emflow.training.segmenter import varied

# One labelled slice in so many is kept apart to judge by.
APART_EVERY = 5


@dataclass(frozen=True)
class LabelledSlice:
    """A standardised slice with those around it, (slices, y, x), and its labels (y, x), 255 where none."""

    name: str
    slab: NDArray[np.float16]
    labels: NDArray[np.uint8]


def value_table(
    values: Collection[int],
    names: Mapping[int, str] | None,
    classes: Sequence[str],
    *,
    not_labelled: int,
    source: str,
) -> dict[int, int]:
    """Return which class of a segmenter each value of a label volume means.

    Parameters
    ----------
    values
        What occurs in the volume.
    names
        The class name of each value; when not given a value is the class of that number.
    classes
        The segmenter's, in order.
    not_labelled
        The value that says nothing; 255 never does.
    source
        The file, for messages.

    Raises
    ------
    SettingError
        For a value that is no class; names it, the file, and the classes that there are.
    """
    table = {not_labelled: NOT_LABELLED, NOT_LABELLED: NOT_LABELLED}
    meaning = dict(enumerate(classes)) if names is None else names
    for value in sorted(values):
        if value in table:
            continue
        name = meaning.get(value)
        if name is None or name not in classes:
            called = f"{value} ({name})" if name else str(value)
            known = ", ".join(f"{number} {one}" for number, one in sorted(meaning.items()) if one in classes)
            raise SettingError(
                f"{source}: the label value {called} is no class; classes are {known}, and {not_labelled} is "
                "not labelled"
            )
        table[value] = list(classes).index(name)
    return table


def split(slices: Sequence[LabelledSlice]) -> tuple[list[LabelledSlice], list[LabelledSlice]]:
    """Split labelled slices into those to learn from and every fifth, to judge by; of two or fewer, none."""
    apart = list(slices[2::APART_EVERY])
    return [one for one in slices if all(one is not other for other in apart)], apart


def labelled_batch(
    slices: Sequence[LabelledSlice], crop: int, count: int, random: np.random.Generator
) -> Batch:
    """Cut crops that hold labels: (n, slices, h, w) and labels (n, h, w)."""
    images, labels = [], []
    for index in random.integers(len(slices), size=count):
        one = slices[index]
        # Around a labelled pixel: a slice may be labelled in one corner alone.
        known = np.flatnonzero(one.labels != NOT_LABELLED)
        pixel = np.unravel_index(known[random.integers(len(known))], one.labels.shape)
        start = [
            int(np.clip(middle - random.integers(crop), 0, side - crop))
            for middle, side in zip(pixel, one.labels.shape, strict=True)
        ]
        part = tuple(slice(first, first + crop) for first in start)
        slab, plane = random_symmetry([one.slab[:, *part], one.labels[None][:, *part]], random)
        images.append(varied(slab, random))
        labels.append(np.asarray(plane[0], dtype=np.int64))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def class_overlaps(
    network: UNet, slices: Sequence[LabelledSlice], classes: Sequence[str]
) -> dict[str, float]:
    """Return Dice's overlap of each class that is labelled in slices, over all of them together."""
    found = np.stack([infer(network, one.slab.astype(np.float32)).argmax(axis=0) for one in slices])
    labels = np.stack([one.labels for one in slices])
    known = labels != NOT_LABELLED
    return {
        name: round(dice(found == value, labels == value, known), 3)
        for value, name in enumerate(classes)
        if (labels == value).any()
    }
