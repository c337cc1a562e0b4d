"""Steps of training a second, of the networks that are shipped."""

import statistics
from collections.abc import Iterator

import numpy as np
from device_timing import Machine, Row

from emflow.networks import build
from emflow.training.batches import Batch, LossOf
from emflow.training.denoiser import denoiser_batch, denoiser_loss
from emflow.training.picker import picker_batch, picker_loss
from emflow.training.settings import TrainingConfig

BATCH = 8
CROP_PIXELS = 256
REPORT_EVERY = 25


def measure_training(machine: Machine) -> Iterator[Row]:
    """Measure training by Lightning's loop as the commands run it, on samples that are in memory.

    Crops are cut and turned for each step, as in a training; what simulation takes is left out. Stretches of
    25 steps; the first does not count.
    """
    try:
        from emflow.training.learner import Learner
        from emflow.training.loop import fit
    except (ModuleNotFoundError, SystemExit) as error:
        yield Row("training", f"not measured: {error}")
        return
    random = np.random.default_rng(0)
    images = [random.normal(size=(512, 512)).astype(np.float16) for _ in range(16)]
    channels = [16, 32, 64, 128]
    crop, stretches = machine.either(CROP_PIXELS, 64), machine.either(8, 2)
    for task in ("picker", "denoiser"):
        outputs = 2 if task == "picker" else 1
        network = build({"name": "UNet", "in_channels": 1, "out_channels": outputs, "channels": channels})
        config = TrainingConfig(steps=stretches * REPORT_EVERY, batch=BATCH, crop_pixels=crop)
        loss: LossOf = picker_loss if task == "picker" else denoiser_loss

        def batch_of_step(step: int, task: str = task) -> Batch:
            draw = np.random.default_rng(step)
            some = [images[number] for number in draw.integers(len(images), size=BATCH)]
            if task == "denoiser":
                return denoiser_batch([(one, one) for one in some], crop, draw)
            return picker_batch([(one, (one > 2).astype(np.float16), one > 3) for one in some], crop, draw)

        spent: list[float] = []
        machine.forget_peak()
        fit(
            Learner(network, config, loss),
            batch_of_step,
            device=machine.device,
            report_every=REPORT_EVERY,
            on_report=lambda _, seconds, spent=spent: spent.append(seconds),
        )
        rate = REPORT_EVERY / statistics.median(spent[1:])
        size = f"{BATCH} of {crop} x {crop}"
        yield Row(f"training of the {task}, {size}: steps a second", f"{rate:.1f}; {machine.peaks()}")
