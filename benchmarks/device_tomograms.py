"""Tomograms: segmentation as its command runs it, back-projection, and denoising."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from device_timing import Machine, Row, verdict
from numpy.typing import NDArray

from emflow.cli.segment import segment
from emflow.cli.volume_stage import write_volume
from emflow.io.index import OK, VolumeRow
from emflow.io.model import load_model
from emflow.io.volumes import SLAB_SLICES
from emflow.networks import UNet
from emflow.reconstruction import ramp_filter, reconstruct_slab
from emflow.resources import model_folder
from emflow.segmentation import look_upright, segment_slabs
from emflow.segmentation_batches import sums_on_gpu
from emflow.tilt_geometry import TiltGeometry
from emflow.volume_denoising import denoise_slabs

PIXEL_SIZE_ANGSTROM = 10.0
SEGMENTATION_WANTED_SECONDS = 30.0
TILTS = 41


def measure_segmentation(machine: Machine) -> Iterator[Row]:
    """Measure the command segment along three axes, from store to store, and without the stores.

    The tomogram is noise in which a network's features are; what it holds changes no speed but that of
    compressing the answer.
    """
    shape = (464, 928, 928) if not machine.small else (32, 96, 64)
    volume = rough_volume(shape)
    size = " x ".join(map(str, shape[::-1]))
    table = machine.folder / "tomogram.tsv"
    store(volume, table)
    machine.forget_peak()
    run = partial(
        segment,
        tomogram=table,
        output=table.with_name("segmented.tsv"),
        model="segmenter",
        device=machine.device.type,
        threads=machine.threads,
    )
    segment_small(machine)  # starts the GPU
    seconds = machine.seconds(run, rounds=1, warm_up=0)
    yield Row(
        f"segment, {size}, along z, y and x, store to store: s",
        f"{seconds:.1f}",
        f"under {SEGMENTATION_WANTED_SECONDS:g}: {verdict(seconds < SEGMENTATION_WANTED_SECONDS)}",
    )
    yield Row(f"segment, {size}: peak memory", machine.peaks())
    network, _ = load_model(model_folder("segmenter"), "segment")
    began = time.perf_counter()
    in_memory(network.to(machine.device), volume, machine.device)
    machine.wait()
    yield Row("the same from memory to memory: s", f"{time.perf_counter() - began:.1f}")
    if machine.on_gpu:
        some = volume[: 2 * SLAB_SLICES]
        busy = machine.busy(lambda: in_memory(network, some, machine.device))
        yield Row(f"segment, {len(some)} slices from memory to memory: GPU busy", busy)
        part = volume[:48, :160, :128]
        labels = in_memory(network, part, machine.device)
        alike = labels == in_memory(network.to("cpu"), part, torch.device("cpu"))
        yield Row("segment: voxels that GPU and CPU label alike", f"{100 * alike.mean():.3f} %")


def measure_reconstruction(machine: Machine) -> Iterator[Row]:
    """Measure weighting and back-projection of 41 tilts in slabs of 32 slices, each brought to the host."""
    side, slabs = machine.either(928, 96), machine.either(4, 1)
    angles = np.linspace(-60, 60, TILTS)
    none = np.zeros(TILTS)
    geometry = TiltGeometry(none, angles, np.full(TILTS, 85.0), none, none)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(3, TILTS, side, side)).astype(np.float32))
    shape = (slabs * SLAB_SLICES, side, side)

    def weigh() -> torch.Tensor:
        return ramp_filter(images.to(machine.device), geometry, shape[0])

    filtered = weigh()

    def back_project(on: torch.Tensor) -> NDArray[np.float32]:
        parts = [
            reconstruct_slab(on, geometry, PIXEL_SIZE_ANGSTROM, shape, first, SLAB_SLICES).cpu().numpy()
            for first in range(0, shape[0], SLAB_SLICES)
        ]
        return np.concatenate(parts, axis=1)

    machine.forget_peak()
    rounds = machine.either(5, 1)
    spent = machine.seconds(partial(back_project, filtered), rounds=rounds)
    work = 3 * float(np.prod(shape)) * TILTS / spent
    weighing = machine.seconds(weigh, rounds=rounds)
    size = f"{side} x {side} x {shape[0]}"
    yield Row(
        f"back-projection of a series and its halves, {size}, {TILTS} tilts: 1e9 voxels x tilts a second",
        f"{work / 1e9:.2f} ({spent:.2f} s)",
    )
    yield Row(f"back-projection, {size}: peak memory", machine.peaks())
    yield Row(f"ramp filter, {side} x {side}: images a second", f"{3 * TILTS / weighing:.0f}")
    if machine.on_gpu:
        busy = machine.busy(partial(back_project, filtered))
        yield Row(f"back-projection, {size}: GPU busy", busy)
        shape = (SLAB_SLICES, 256, 256)
        part = filtered[..., :256, :256].contiguous()
        ours, theirs = back_project(part), back_project(part.cpu())
        worst = float(np.abs(ours - theirs).max() / theirs.std())
        yield Row("back-projection: largest difference of GPU and CPU", f"{worst:.1e} deviations")


def measure_denoising(machine: Machine) -> Iterator[Row]:
    """Measure denoise_slabs of both halves of a tomogram in memory."""
    shape = (256, 512, 512) if not machine.small else (32, 64, 64)
    halves = [rough_volume(shape, seed) for seed in (1, 2)]
    network, _ = load_model(model_folder("tomogram_denoiser"), "denoise_tomogram")

    def run(device: torch.device, shape: tuple[int, int, int] = shape) -> NDArray[np.float32]:
        reads = [partial(slices_of, half[: shape[0], : shape[1], : shape[2]]) for half in halves]
        slabs = denoise_slabs(
            network.to(device), reads, shape, SLAB_SLICES, standards=[(0.0, 1.0)] * 2, device=device
        )
        return np.concatenate([slab for _, slab in slabs])

    machine.forget_peak()
    seconds = machine.seconds(partial(run, machine.device), rounds=machine.either(3, 1))
    size = " x ".join(map(str, shape[::-1]))
    yield Row(
        f"denoising of a tomogram's halves, {size}: 1e6 voxels a second",
        f"{np.prod(shape) / seconds / 1e6:.1f} ({seconds:.1f} s)",
    )
    yield Row(f"denoising of a tomogram, {size}: peak memory", machine.peaks())
    if machine.on_gpu:
        yield Row("denoising of a tomogram: GPU busy", machine.busy(partial(run, machine.device)))
        part = (32, 96, 96)
        worst = np.abs(run(machine.device, part) - run(torch.device("cpu"), part)).max()
        yield Row("denoising of a tomogram: largest difference of GPU and CPU", f"{worst:.1e} deviations")


def slices_of(volume: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
    """Return slices of a volume in memory."""
    return volume[first:last]


def in_memory(network: UNet, volume: NDArray[np.float32], device: torch.device) -> NDArray[np.uint8]:
    """Segment a volume along three axes as the command does, with nothing on disk; return its labels."""
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    sums_shape = (network.out_channels, *shape)
    on_gpu = sums_on_gpu(sums_shape, device)
    sums = np.zeros(sums_shape, dtype=np.uint8) if on_gpu is None else on_gpu
    options = {"centre": 0.0, "spread": 1.0, "looks": 2, "device": device}
    look_upright(network, volume.__getitem__, shape, sums, **options)
    slabs = segment_slabs(network, volume.__getitem__, shape, SLAB_SLICES, upright=sums, **options)
    return np.concatenate([labels for _, _, labels in slabs])


def segment_small(machine: Machine) -> None:
    """Segment a little tomogram."""
    network, _ = load_model(model_folder("segmenter"), "segment")
    in_memory(network.to(machine.device), rough_volume((16, 64, 64)), machine.device)


def rough_volume(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.float32]:
    """Return noise (z, y, x) with some objects in it."""
    random = np.random.default_rng(seed)
    volume = random.standard_normal(shape, dtype=np.float32)
    for z, y, x in random.integers(0, np.array(shape) - 12, (shape[0] * shape[1] // 200, 3)):
        volume[z : z + 12, y : y + 12, x : x + 12] -= 1.5
    return volume


def store(volume: NDArray[np.float32], table: Path) -> None:
    """Write a volume as the pipeline stores tomograms."""
    depth, height, width = volume.shape
    size = {"depth": depth, "height": height, "width": width, "pixel_size_angstrom": PIXEL_SIZE_ANGSTROM}
    unbinned = {f"unbinned_{key}": value for key, value in size.items()}
    slabs = (
        (first, volume[None, first : first + SLAB_SLICES], None) for first in range(0, depth, SLAB_SLICES)
    )
    write_volume("device", table, VolumeRow("noise", OK, **size, **unbinned), slabs, channels=["full"])
