"""Training the denoiser of tomograms: a noisy half in, the tomogram of noiseless tilts as the target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.model_card import DENOISE_TOMOGRAM, ModelCard
from emflow.segmentation import measured_standardisation, standardise, whole
from emflow.training.augment import random_symmetry
from emflow.training.batches import Batch
from emflow.training.tomograms import PIXEL_SIZE_ANGSTROM, Draw

# Below this share of the noise's variance a signal is not worth as much as a stronger one.
SQUARE_FLOOR = 0.05
NOTES = (
    "Works at 10 A a voxel on halves of the data (frames or tilts), protein dark. Trained on simulated "
    "tomograms alone, of ice of 60 to 200 nm, with the tomogram of noiseless tilts as target: contrast "
    "transfer and missing wedge stay as they are. For eyes and for segmentation, never for averaging."
)

DenoiserSample = tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]


@dataclass(frozen=True)
class TomogramDenoiserSamples:
    """Makes training samples: even and odd half and the clean tomogram, each (z, y, x), in units of noise."""

    draw: Draw

    def __call__(self, seed: tuple[int, int]) -> DenoiserSample:
        """Make the sample of a seed."""
        drawn = self.draw(seed)
        standards = measured_standardisation(whole(drawn.even), len(drawn.even))
        even, odd, clean = (
            standardise(volume, *standards).astype(np.float16)
            for volume in (drawn.even, drawn.odd, drawn.clean)
        )
        return even, odd, clean


def tomogram_denoiser_batch(
    samples: Sequence[DenoiserSample], crop_voxels: int, random: np.random.Generator
) -> Batch:
    """Cut a cube out of each sample: (noisy, target), both (n, 1, d, h, w).

    The noisy one is either half, or now and then their mean: what there is without halves.
    """
    noisy, targets = [], []
    for even, odd, clean in samples:
        cube = _random_cube((even, odd, clean), crop_voxels, random)
        # The square's symmetries are about the beam; a mirror in z leaves the missing wedge as it is.
        cube = random_symmetry(cube, random)
        if random.random() < 0.5:
            cube = [part[::-1] for part in cube]
        one, other, clean_cube = (np.asarray(part, dtype=np.float32) for part in cube)
        kind = random.random()
        chosen = one if kind < 0.45 else other if kind < 0.9 else 0.5 * (one + other)
        scale = np.float32(1.0 if kind < 0.9 else 1.0 / max(0.3, float(chosen.std())))
        noisy.append(chosen[None] * scale)
        targets.append(clean_cube[None] * scale)
    return torch.from_numpy(np.stack(noisy)), torch.from_numpy(np.stack(targets))


def _random_cube(
    volumes: Sequence[NDArray[np.generic]], side: int, random: np.random.Generator
) -> list[NDArray[np.generic]]:
    """Cut the same cube out of volumes, the most eventful of three."""
    best: tuple[float, tuple[slice, ...]] | None = None
    for _ in range(3):
        start = [int(random.integers(size - side + 1)) for size in volumes[0].shape]
        part = tuple(slice(first, first + side) for first in start)
        events = float(np.asarray(volumes[-1][part][::4, ::4, ::4], dtype=np.float32).std())
        if best is None or events > best[0]:
            best = events, part
    return [volume[best[1]] for volume in volumes] if best else []


def tomogram_denoiser_loss(answer: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the squared error relative to the clean cube's own square, cube by cube."""
    clean = batch[1]
    error = (answer - clean).square().mean(dim=(1, 2, 3, 4))
    return (error / (clean.square().mean(dim=(1, 2, 3, 4)) + SQUARE_FLOOR)).mean()


def new_card(architecture: dict[str, Any]) -> ModelCard:
    """Return the card of a denoiser of tomograms."""
    return ModelCard(
        task=DENOISE_TOMOGRAM,
        architecture=architecture,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
        notes=NOTES,
    )
