"""Fine-tuning the picker on a user's picks, all of a micrograph's particles or only some of them.

Half of what a step learns from is simulated, as in the general training: few picks cannot teach what ice and
carbon look like, and must not make the network forget it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from emflow.fourier import fourier_resize, resized_shape
from emflow.model_card import ModelCard
from emflow.networks import UNet
from emflow.picking import pick_micrograph, working_pixel_size
from emflow.preprocessing import normalise
from emflow.scoring import (
    STRICT_RADII,
    Points,
    ScoredPicks,
    average_precision,
    best_f1,
    pool,
    score_picks,
)
from emflow.training.augment import random_crop, random_symmetry
from emflow.training.batches import Batch
from emflow.training.picker import (
    BACKGROUND_WEIGHT,
    HEAT_SIGMA_DIAMETERS,
    JUNK_WEIGHT,
    PickerSample,
    picker_loss,
    target_heat,
)

REPLAY_SHARE = 0.5
# Around a pick, in particle diameters, the heat is known; beyond it an unlabelled particle may be.
KNOWN_DIAMETERS = 0.45


@dataclass(frozen=True)
class PickedMicrograph:
    """A micrograph with a user's picks.

    ``image`` float32 (h, w) as stored; ``picks_yx`` float64 (n, 2) in its pixels. ``missing`` is the number
    of particles believed to be there besides the picks: 0 where all are picked.
    """

    name: str
    image: NDArray[np.float32]
    pixel_size_angstrom: float
    picks_yx: Points
    missing: float = 0.0


@dataclass(frozen=True)
class PickedSample:
    """A micrograph at the network's scale: image, heat, and where a pick says what the heat is, (h, w)."""

    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    known: NDArray[np.float32]
    picks: NDArray[np.float32]  # 1 at each pick's pixel
    missing: float


def picked_sample(
    micrograph: PickedMicrograph, diameter_angstrom: float, pixels_per_diameter: float
) -> PickedSample:
    """Bring a micrograph and its picks to the network's scale."""
    pixel_size = working_pixel_size(micrograph.pixel_size_angstrom, diameter_angstrom, pixels_per_diameter)
    shape = resized_shape(micrograph.image.shape, micrograph.pixel_size_angstrom, pixel_size)
    image = normalise(fourier_resize(micrograph.image, shape))
    diameter = diameter_angstrom / pixel_size
    centres = micrograph.picks_yx * (np.asarray(shape) / np.asarray(micrograph.image.shape))
    heat = target_heat(shape, centres, HEAT_SIGMA_DIAMETERS * diameter)
    # A Gaussian's height tells the distance to the nearest pick.
    edge = math.exp(-0.5 * (KNOWN_DIAMETERS / HEAT_SIGMA_DIAMETERS) ** 2)
    marks = np.zeros(shape, dtype=np.float32)
    rows, columns = np.clip(np.rint(centres), 0, np.asarray(shape) - 1).astype(np.intp).T
    marks[rows, columns] = 1.0
    return PickedSample(image, heat, (heat >= edge).astype(np.float32), marks, micrograph.missing)


def finetuning_batch(
    picked: Sequence[PickedSample],
    simulated: Sequence[PickerSample],
    count: int,
    crop_pixels: int,
    random: np.random.Generator,
) -> Batch:
    """Cut ``count`` crops of picked micrographs and one of each simulated scene.

    A picked crop lies around a pick with probability 0.7, anywhere otherwise.

    Returns
    -------
    Batch
        Image (n, 1, h, w); target (n, 2, h, w); known (n, h, w); and per crop (n,) the picks in it, the
        particles believed to be missing, and whether it is a picked one. Picked crops come first.
    """
    images, targets, known, marks, missing = [], [], [], [], []
    for index in random.integers(len(picked), size=count):
        sample = picked[index]
        arrays = [sample.image, sample.heat, sample.known, sample.picks]
        if random.random() < 0.7:
            arrays = _around_a_pick(arrays, crop_pixels, random)
        image, heat, near, marked = random_symmetry(random_crop(arrays, crop_pixels, random), random)
        images.append(image)
        targets.append(np.stack([heat, np.zeros_like(heat)]))
        known.append(near)
        marks.append(float(marked.sum()))
        missing.append(sample.missing * crop_pixels**2 / sample.image.size)
    for scene in simulated:
        image, heat, junk = random_symmetry(random_crop(scene, crop_pixels, random), random)
        images.append(image.astype(np.float32))
        targets.append(np.stack([heat, junk]).astype(np.float32))
        known.append(np.zeros(image.shape, dtype=np.float32))
        marks.append(0.0)
        missing.append(0.0)
    is_picked = np.arange(len(images)) < count
    return (
        torch.from_numpy(np.stack(images).astype(np.float32)[:, None].copy()),
        torch.from_numpy(np.stack(targets).astype(np.float32)),
        torch.from_numpy(np.stack(known).astype(np.float32)),
        torch.tensor(marks, dtype=torch.float32),
        torch.tensor(missing, dtype=torch.float32),
        torch.from_numpy(is_picked),
    )


def _around_a_pick(
    arrays: Sequence[NDArray[np.float32]], side: int, random: np.random.Generator
) -> list[NDArray[np.float32]]:
    """Cut a square of up to twice the side, in whose middle there is a pick."""
    rows, columns = np.nonzero(arrays[3])
    if not len(rows):
        return list(arrays)
    which = int(random.integers(len(rows)))
    slices = []
    for centre, length in zip((rows[which], columns[which]), arrays[0].shape, strict=True):
        start = int(np.clip(centre - side, 0, max(0, length - 2 * side)))
        slices.append(slice(start, min(length, start + 2 * side)))
    return [array[slices[0], slices[1]] for array in arrays]


def finetuning_loss(answer: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the picker's loss on simulated crops plus the loss of the heat on picked ones.

    On picked crops nothing is known of junk, except that it is not where picks are.
    """
    _, target, known, marks, missing, is_picked = batch
    count = int(is_picked.sum())
    heat = positive_unlabelled_loss(
        answer[:count, 0], target[:count, 0], known[:count], marks[:count], missing[:count]
    )
    on_picks = functional.binary_cross_entropy_with_logits(
        answer[:count, 1], torch.zeros_like(known[:count]), reduction="none"
    )
    loss = heat + JUNK_WEIGHT * 0.5 * (on_picks * known[:count]).sum() / known[:count].sum().clamp(min=1)
    if count == len(is_picked):
        return loss
    share = count / len(is_picked)
    return share * loss + (1 - share) * picker_loss(answer[count:], (batch[0][count:], target[count:]))


def positive_unlabelled_loss(
    logit: torch.Tensor,
    heat: torch.Tensor,
    known: torch.Tensor,
    marks: torch.Tensor,
    missing: torch.Tensor,
) -> torch.Tensor:
    """Return the weighted squared error of the heat, an estimate of what it would be with all picks made.

    Around picks it is the picker's, ``(sigmoid(p) - y)^2 (y + 0.1)``, and stands for the ``missing``
    particles too. Elsewhere the heat should be 0, but for
    the ``missing`` particles among it, whose share of ``sum sigmoid(p)^2`` is taken to be what picked
    particles have, on average. The difference, an estimate of the error on true background, cannot be
    negative: below 0 it counts as 0. That is the non-negative estimator of Kiryo et al., Positive-unlabeled
    learning with non-negative risk estimator (NIPS 2017), with particles for its classes. With no particle
    missing it is the ordinary loss.

    Parameters
    ----------
    logit, heat, known
        Shape (n, h, w): the answer, the target, and 1 where a pick says what the target is.
    marks, missing
        Shape (n,): the picks in each crop, and the particles there without one.
    """
    probability = torch.sigmoid(logit)
    near = (known * (heat + BACKGROUND_WEIGHT) * (probability - heat).square()).sum()
    elsewhere = ((1 - known) * (probability - heat).square()).sum()
    stands_for = 1 + missing.sum() / marks.sum().clamp(min=1)
    of_a_particle = (known * probability.square()).sum() / marks.sum().clamp(min=1)
    background = (elsewhere - missing.sum() * of_a_particle).clamp(min=0)
    weight = (stands_for * heat + BACKGROUND_WEIGHT).sum()
    return (stands_for * near + BACKGROUND_WEIGHT * background) / weight


def judge(
    network: UNet, card: ModelCard, micrographs: Sequence[PickedMicrograph], diameter_angstrom: float
) -> float:
    """Return how well held-out micrographs are picked, 0..1.

    Average precision where all particles are picked. Where some are missing a pick without a truth is no
    error, and it is the share of the user's picks that is found among as many picks as there should be
    particles.
    """
    parts = [scored(network, card, one, diameter_angstrom) for one in micrographs]
    if not any(one.missing for one in micrographs):
        return average_precision(pool(parts))
    found = [
        part.is_right[: round(part.truths + one.missing)].sum()
        for part, one in zip(parts, micrographs, strict=True)
    ]
    return float(sum(found)) / max(1, sum(part.truths for part in parts))


def state_to_keep(values: Sequence[float], picks: int) -> int:
    """Return which state of a training to keep, by how good each was on so few picks.

    The last, unless the best is better by more than the standard error of a share of ``picks`` picks (with
    one right and one wrong added, or a share of 1 would have none): so few picks cannot tell closer ones
    apart.
    """
    best = int(np.argmax(values))
    share = (values[best] * picks + 1) / (picks + 2)
    error = math.sqrt(share * (1 - share) / (picks + 2))
    return len(values) - 1 if values[-1] >= values[best] - error else best


def scored(network: UNet, card: ModelCard, one: PickedMicrograph, diameter_angstrom: float) -> ScoredPicks:
    """Pick a micrograph and match with the user's picks, those at the edge apart."""
    shape = (one.image.shape[0], one.image.shape[1])
    picks = pick_micrograph(
        one.image,
        image_pixel_size_angstrom=one.pixel_size_angstrom,
        unbinned_shape=shape,
        diameter_angstrom=diameter_angstrom,
        network=network,
        card=card,
        floor=1e-4,
    )
    radius = diameter_angstrom / one.pixel_size_angstrom / 2
    last = np.asarray(shape) - 1 - radius
    truths = one.picks_yx[((one.picks_yx >= radius) & (one.picks_yx <= last)).all(axis=1)]
    return score_picks(
        np.column_stack([picks.y, picks.x]), picks.figure_of_merit, truths, 2 * STRICT_RADII * radius
    )


def particles_found(network: UNet, card: ModelCard, one: PickedMicrograph, diameter_angstrom: float) -> float:
    """Return how many particles the model finds in a micrograph at its own threshold."""
    threshold = 0.5 if card.threshold is None else card.threshold
    return float(np.count_nonzero(scored(network, card, one, diameter_angstrom).score >= threshold))


def with_threshold(
    network: UNet, card: ModelCard, micrographs: Sequence[PickedMicrograph], diameter_angstrom: float
) -> ModelCard:
    """Return the card with a threshold for this specimen.

    Where all particles are picked it is that of the best F1; else the one that gives as many picks as there
    should be particles.
    """
    parts = [scored(network, card, one, diameter_angstrom) for one in micrographs]
    pooled = pool(parts)
    missing = sum(one.missing for one in micrographs)
    if missing:
        expected = round(pooled.truths + missing)
        threshold = float(pooled.score[min(expected, len(pooled.score)) - 1]) if len(pooled.score) else 0.5
    else:
        threshold = best_f1(pooled)[1]
    return replace(card, threshold=round(threshold, 4) if math.isfinite(threshold) else card.threshold)


def split(
    micrographs: Sequence[PickedMicrograph], seed: int
) -> tuple[list[PickedMicrograph], list[PickedMicrograph]]:
    """Split whole micrographs into those to learn from and a fifth, at least one, to judge by."""
    order = np.random.default_rng((seed, 5)).permutation(len(micrographs))
    held_out = max(1, len(micrographs) // 5)
    return [micrographs[i] for i in order[held_out:]], [micrographs[i] for i in order[:held_out]]
