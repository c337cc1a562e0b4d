"""A user's own micrographs as what the denoiser learns from, and how well it does on those kept apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emflow.cli.progress import say
from emflow.cli.training import Material
from emflow.denoising import denoise_micrograph
from emflow.errors import BadInputError, SettingError
from emflow.evaluation.denoising import ring_correlation
from emflow.io.halves import find_halves, find_micrographs
from emflow.io.mrc import read_mrc, read_mrc_header
from emflow.model_card import DENOISE, ModelCard
from emflow.networks import UNet
from emflow.training.batches import Batch, mean_loss
from emflow.training.denoiser import PIXEL_SIZE_ANGSTROM
from emflow.training.self_supervised import (
    LEAST_WHITENESS,
    OwnMicrograph,
    halves_batch,
    halves_loss,
    hidden_batch,
    hidden_loss,
    own_micrograph,
    split,
    whiteness,
)
from emflow.training.settings import TrainingConfig

FEWEST = 2
VALIDATION_BATCHES = 4


@dataclass(frozen=True)
class OwnMaterial:
    """What to learn from, the loss, and the micrographs kept apart, with or ``with_halves``."""

    material: Material
    loss: Callable[[torch.Tensor, Batch], torch.Tensor]
    apart: Sequence[OwnMicrograph]
    with_halves: bool
    data: dict[str, Any]

    def scores(self, network: UNet, shipped: UNet, card: ModelCard) -> dict[str, Any]:
        """Return how a network and the shipped one do on what was kept apart.

        With halves also the mean Fourier ring correlation of one half, as recorded and denoised by each, with
        the other half as recorded: a network cannot raise it by inventing what is not there.
        """
        scores: dict[str, Any] = {
            "micrographs_kept_apart": len(self.apart),
            "loss": round(mean_loss(network, self.material.validation, self.loss), 5),
            "loss_of_shipped_denoiser": round(mean_loss(shipped, self.material.validation, self.loss), 5),
        }
        if self.with_halves:
            table = []
            for one in self.apart:
                answers = [
                    denoise_micrograph(
                        one.even, image_pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, network=net, card=card
                    )
                    for net in (network, shipped)
                ]
                table.append([ring_correlation(image, one.odd).mean() for image in (one.even, *answers)])
            names = ("recorded", "denoised", "denoised_by_shipped")
            scores["ring_correlation_with_other_half"] = {
                name: round(float(value), 4)
                for name, value in zip(names, np.mean(table, axis=0), strict=True)
            }
        return scores


def own_material(halves: Path | None, micrographs: Path | None, config: TrainingConfig) -> OwnMaterial:
    """Read halves or single micrographs, and split them by whole micrographs.

    A file that cannot be read is left out, with its reason.

    Raises
    ------
    SettingError
        When both are given, or too few can be read.
    """
    if halves is not None and micrographs is not None:
        raise SettingError("--halves and --micrographs exclude each other: with halves, halves are better")
    source = halves or micrographs
    found = (
        [(one.name, [one.even, one.odd]) for one in find_halves(halves)]
        if halves is not None
        else [(path.stem, [path]) for path in find_micrographs(micrographs or Path())]
    )
    read = []
    for name, paths in found:
        try:
            read.append(_read(name, paths, config.crop_pixels))
        except BadInputError as error:
            say(DENOISE, f"left out {name}: {error}")
    if len(read) < FEWEST:
        raise SettingError(
            f"{source}: {len(read)} of {len(found)} micrographs can be used; at least {FEWEST}, and some 50 "
            "do well"
        )
    learn, apart = split(read, config.seed)
    say(DENOISE, f"{len(learn)} micrographs to learn from, {len(apart)} kept apart")
    make, loss = (halves_batch, halves_loss) if halves is not None else (hidden_batch, hidden_loss)
    data: dict[str, Any] = {
        "data": f"{len(read)} micrographs, "
        + ("even and odd sums (Noise2Noise)" if halves is not None else "hidden pixels (Noise2Void)")
    }
    if halves is None:
        data["whiteness"] = round(float(np.median([whiteness(one.even) for one in read])), 3)
        if data["whiteness"] < LEAST_WHITENESS:
            say(
                DENOISE,
                f"the noise of these micrographs is coloured (power near Nyquist {data['whiteness']:g} of "
                "that at half of it): hidden pixels can be guessed from their neighbours' noise, which will "
                "be kept as signal. The shipped denoiser, or sums of even and odd frames, will do better",
            )

    def batch_of_step(step: int) -> Batch:
        random = np.random.default_rng((config.seed, step, 9))
        return make(learn, config.batch, config.crop_pixels, random)

    validation = [
        make(apart, config.batch, config.crop_pixels, np.random.default_rng((config.seed, number, 10)))
        for number in range(VALIDATION_BATCHES)
    ]
    return OwnMaterial(Material(batch_of_step, validation), loss, apart, halves is not None, data)


def _read(name: str, paths: Sequence[Path], crop_pixels: int) -> OwnMicrograph:
    headers = [read_mrc_header(path) for path in paths]
    sizes = {(header.height, header.width) for header in headers}
    if len(sizes) > 1:
        raise BadInputError("its halves differ in size")
    pixel_size = headers[0].pixel_size_angstrom
    if not pixel_size:
        raise BadInputError("its header states no pixel size")
    images = [read_mrc(path, header) for path, header in zip(paths, headers, strict=True)]
    one = own_micrograph(name, images, pixel_size)
    if min(one.even.shape) < crop_pixels:
        raise BadInputError(
            f"it has {one.even.shape[1]} x {one.even.shape[0]} pixels of {PIXEL_SIZE_ANGSTROM:g} A, crops of "
            f"{crop_pixels} do not fit"
        )
    return one
