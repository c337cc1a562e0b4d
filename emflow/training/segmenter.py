"""Training the segmenter: slabs of simulated tomograms in, the classes of their middle slices as target."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from emflow.model_card import SEGMENT, ModelCard
from emflow.networks import UNet
from emflow.segmentation import measured_standardisation, standardise, whole
from emflow.tomogram_classes import CLASS_NAMES, NOT_LABELLED, Label
from emflow.training.augment import random_crop, random_mirror, random_symmetry
from emflow.training.batches import Batch
from emflow.training.tomograms import PIXEL_SIZE_ANGSTROM, Draw
from emflow.volume_denoising import denoised

# What a voxel of a class counts in the cross-entropy: thin and rare ones more than what fills the picture.
# With more for membranes and complexes the likeliest class is a membrane too thick, and a complex too often.
CLASS_WEIGHTS = {
    Label.BACKGROUND: 0.5,
    Label.MEMBRANE: 1.2,
    Label.RIBOSOME: 1.0,
    Label.FILAMENT: 1.5,
    Label.GOLD: 2.0,
    Label.CARBON: 1.0,
    Label.VOID: 0.5,
    Label.COMPLEX: 1.0,
}
# For the card, and for a training that goes on: it must count classes alike.
TOLD = {"class_weights": {CLASS_NAMES[label]: weight for label, weight in CLASS_WEIGHTS.items()}}
# Of the tomograms, where a denoiser is given; and of the batches, cut along y or x instead of z.
DENOISED_SHARE = 0.6
UPRIGHT_SHARE = 2 / 3
NOTES = (
    "Works at 10 A a voxel on tomograms as reconstructed (protein dark), raw or denoised, slice by slice. "
    "Trained on simulated tomograms alone, of ice of 60 to 200 nm; ribosomes there are made up, filaments "
    "are microtubules and actin."
)

SegmenterSample = tuple[NDArray[np.float16], NDArray[np.uint8]]


@dataclass(frozen=True)
class SegmenterSamples:
    """Makes training samples: a standardised tomogram and its labels, both (z, y, x)."""

    draw: Draw
    denoiser: UNet | None = None

    def __call__(self, seed: tuple[int, int]) -> SegmenterSample:
        """Make the sample of a seed: of all data or of half, sometimes smoothed, or denoised."""
        random = np.random.default_rng((*seed, 14))
        drawn = self.draw(seed)
        if self.denoiser is not None and random.random() < DENOISED_SHARE:
            halves = (drawn.even.astype(np.float32), drawn.odd.astype(np.float32))
            return standardised(denoised(self.denoiser, halves)).astype(np.float16), drawn.labels
        volume = drawn.even.astype(np.float32)
        if random.random() < 0.75:
            volume = 0.5 * (volume + drawn.odd.astype(np.float32))
        if random.random() < 0.5:
            volume = ndimage.gaussian_filter(volume, random.uniform(0.4, 1.6))
        return standardised(volume).astype(np.float16), drawn.labels


def standardised(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standardise a whole tomogram (z, y, x), as the pipeline does."""
    return standardise(volume, *measured_standardisation(whole(volume), len(volume)))


def segmenter_batch(
    samples: Sequence[SegmenterSample],
    crop_pixels: int,
    random: np.random.Generator,
    *,
    slices: int = 7,
    axes: str = "zyx",
    stride: int = 16,
) -> Batch:
    """Cut a crop of some neighbouring slices out of each sample: (n, slices, h, w) and labels (n, h, w).

    The slices of a batch lie along one of ``axes``. Upright ones, along y or x, are mirrored but not turned:
    the missing wedge has its place. They are whole, filled up to whole strides: where the top of a vesicle
    is, which the wedge hides, only its sides can tell.
    """
    radius = slices // 2
    upright = axes == "zyx" and random.random() < UPRIGHT_SHARE
    order = ((1, 0, 2), (2, 0, 1))[int(random.integers(2))] if upright else (0, 1, 2)
    images, labels = [], []
    for volume, truth in samples:
        turned, known = volume.transpose(order), truth.transpose(order)
        z = _interesting_slice(known, radius, random)
        pair = turned[z - radius : z + radius + 1], known[z][None]
        if upright:
            slab, plane = random_mirror(_in_whole_strides(*pair, stride), random)
        else:
            side = min(crop_pixels, min(known.shape[1:]) // stride * stride)
            slab, plane = random_symmetry(random_crop(pair, side, random), random)
        images.append(varied(slab, random))
        labels.append(np.asarray(plane[0], dtype=np.int64))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def _in_whole_strides(
    slab: NDArray[np.generic], plane: NDArray[np.uint8], stride: int
) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:
    """Mirror slices (n, h, w) beyond their end, as whole slices are looked at; there no label counts."""
    more = [(0, 0), *((0, -side % stride) for side in plane.shape[1:])]
    return np.pad(slab, more, mode="symmetric"), np.pad(plane, more, constant_values=NOT_LABELLED)


def varied(slab: NDArray[np.generic], random: np.random.Generator) -> NDArray[np.float32]:
    """Return a slab (slices, h, w) upside down or not, and of a slightly other contrast and offset."""
    slab = slab[::-1] if random.random() < 0.5 else slab
    gain, offset = random.uniform(0.8, 1.25), random.uniform(-0.2, 0.2)
    return np.asarray(slab, dtype=np.float32) * np.float32(gain) + np.float32(offset)


def _interesting_slice(truth: NDArray[np.uint8], radius: int, random: np.random.Generator) -> int:
    """Draw a slice, rather one in the ice than in the void."""
    z = radius
    for _ in range(4):
        z = int(random.integers(radius, len(truth) - radius))
        if (truth[z, ::8, ::8] != Label.VOID).mean() > 0.5 or random.random() < 0.1:
            break
    return z


def segmenter_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return cross-entropy, by class weight, and Dice's loss over the classes that are there, in equal parts.

    Parameters
    ----------
    logits
        (n, classes, [d,] h, w).
    batch
        Its second tensor holds the labels (n, [d,] h, w); what is 255 counts in neither part.
    """
    labels = batch[1]
    weight = torch.tensor([CLASS_WEIGHTS[label] for label in Label], device=logits.device)
    known = labels != NOT_LABELLED
    if not bool(known.any()):
        return logits.sum() * 0
    entropy = functional.cross_entropy(logits, labels, weight=weight, ignore_index=NOT_LABELLED)
    probability = torch.softmax(logits, dim=1) * known[:, None]
    truth = functional.one_hot(torch.where(known, labels, 0), logits.shape[1]).movedim(-1, 1) * known[:, None]
    all_but_classes = (0, *range(2, logits.ndim))
    both = (probability * truth).sum(dim=all_but_classes)
    each = (probability + truth).sum(dim=all_but_classes)
    there = truth.sum(dim=all_but_classes) > 0
    dice = 1 - ((2 * both + 1) / (each + 1))[there].mean()
    return 0.5 * (entropy + dice)


def new_card(architecture: dict[str, Any]) -> ModelCard:
    """Return the card of a segmenter."""
    return replace(
        ModelCard(
            task=SEGMENT,
            architecture=architecture,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            classes=CLASS_NAMES,
        ),
        notes=NOTES,
    )
