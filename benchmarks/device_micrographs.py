"""CTF estimation and the chain from micrographs to picks, as the commands run them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import mrcfile
import numpy as np
import torch
from device_timing import Machine, Row, verdict
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emflow.cli.build_tiles import build_tiles
from emflow.cli.denoise import denoise
from emflow.cli.estimate_ctf import estimate_ctf
from emflow.cli.pick import pick
from emflow.ctf import ctf_2d
from emflow.ctf_estimation import fit_power_spectra, power_spectrum
from emflow.denoising import denoise_micrograph, denoised_shape
from emflow.fourier import fourier_resize
from emflow.inference import infer
from emflow.io.index import MicrographRow, read_index, write_index
from emflow.io.micrographs import read_header
from emflow.io.model import load_model
from emflow.metadata import Picks
from emflow.networks import UNet
from emflow.picking import pick_micrograph, working_image
from emflow.preprocessing import flat_field, normalise
from emflow.resources import model_folder

PIXEL_SIZE_ANGSTROM = 0.9
STORED_PIXEL_SIZE_ANGSTROM = 3.0
DIAMETER_ANGSTROM = 150.0
OPTICS = {"voltage_kilovolt": 300.0, "spherical_aberration_millimetre": 2.7, "amplitude_contrast": 0.1}
CTF_WANTED = 30.0
CHAIN_WANTED = 15.0
# Images that a network alone is given at a time.
TOGETHER = 8


def measure_ctf(machine: Machine) -> Iterator[Row]:
    """Measure estimate_ctf, and its two parts on their own.

    The command reads micrographs and makes their spectra one by one, and on a GPU fits the spectra of up to
    32 together (on a CPU one by one); what a fit is worth is then judged one by one on the CPU. Its threads
    take such groups in turn. The parts are measured in one thread: power_spectrum of a micrograph in memory,
    and fit_power_spectra of a whole group, judgement and pictures included.
    """
    side, count = machine.either(4096, 512), machine.either(96, 4)
    table = make_micrographs(machine.folder, side, count)
    images = [read(number, machine.folder) for number in range(4)]
    output = table.with_name("ctf.tsv")
    run = partial(
        estimate_ctf, micrographs=table, output=output, device=machine.device.type, threads=machine.threads
    )
    on_device = partial(power_spectrum, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, device=machine.device)
    fit = partial(fit_power_spectra, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, **OPTICS)
    spectra = [on_device(image) for image in images]
    group = (spectra * 8)[: machine.either(32, 2)]
    machine.forget_peak()
    rate = count / machine.seconds(run, rounds=machine.either(3, 1))
    what = f"estimate_ctf, {count} of {side} x {side}"
    yield Row(
        f"{what}, read and written: micrographs a second",
        f"{rate:.1f}",
        f"over {CTF_WANTED:g}: {verdict(rate > CTF_WANTED)}",
    )
    yield Row(f"{what}: peak memory", machine.peaks())
    rate = 1 / machine.seconds(partial(on_device, images[0]))
    yield Row(f"power_spectrum, {side} x {side}, one thread: micrographs a second", f"{rate:.1f}")
    rate = len(group) / machine.seconds(partial(fit, group, device=machine.device), rounds=3)
    yield Row(f"fit_power_spectra, {len(group)} together, one thread: micrographs a second", f"{rate:.1f}")
    if machine.on_gpu:
        yield Row(f"{what}: GPU busy", machine.busy(run))
        here, there = (fit(spectra, device=device) for device in (machine.device, "cpu"))
        pairs = zip(here, there, strict=True)
        worst = max(abs(a.ctf.defocus_u_angstrom - b.ctf.defocus_u_angstrom) for a, b in pairs)
        yield Row("CTF: largest difference of defocus U, GPU and CPU, 4 micrographs", f"{worst:.2f} A")


def measure_picking(machine: Machine) -> Iterator[Row]:
    """Measure build_tiles, denoise and pick, each as its command does it, and the networks alone.

    In this process, so that imports and the GPU's start are left out as they are in the long run; models are
    loaded each time. The chain is one stage after the other on one batch, which a cluster does better: there
    stages of several batches run at one time. "Import" is to read the headers, which is what it does.
    """
    side, count = machine.either(4096, 512), machine.either(96, 4)
    table = make_micrographs(machine.folder, side, count)
    tiles, denoised, picks = (table.with_name(f"{name}.tsv") for name in ("tiles", "denoised", "picks"))
    kind, threads = machine.device.type, machine.threads
    paths = [Path(row.path) for row in read_index(table, MicrographRow)]
    stages: dict[str, Callable[[], object]] = {
        "import": lambda: [read_header(path) for path in paths],
        "build_tiles": partial(
            build_tiles,
            micrographs=table,
            output=tiles,
            pixel_size_angstrom=STORED_PIXEL_SIZE_ANGSTROM,
            outlier_sigmas=8.0,
            background_sigma_angstrom=1000.0,
            threads=threads,
        ),
        "denoise": partial(
            denoise, tiles=tiles, output=denoised, model="denoiser", device=kind, threads=threads
        ),
        "pick": partial(
            pick,
            images=tiles,
            output=picks,
            model="picker",
            diameter_angstrom=DIAMETER_ANGSTROM,
            device=kind,
            threads=threads,
        ),
    }
    machine.forget_peak()
    size = f"{count} of {side} x {side}"
    seconds = {}
    for name, run in stages.items():
        seconds[name] = machine.seconds(run, rounds=machine.either(3, 1))
        yield Row(f"{name}, {size}: micrographs a second", f"{count / seconds[name]:.1f}")
    chain = count / sum(seconds.values())
    without = count / (sum(seconds.values()) - seconds["denoise"])
    yield Row(
        f"import, build_tiles, denoise, pick in turn, {size}: micrographs a second",
        f"{chain:.1f} (without denoise {without:.1f})",
        f"{CHAIN_WANTED:g}: {verdict(chain >= CHAIN_WANTED)}",
    )
    yield Row(f"build_tiles, denoise, pick, {size}: peak memory", machine.peaks())
    yield from network_rates(machine, read(0, machine.folder))
    if machine.on_gpu:
        for name in ("denoise", "pick"):
            yield Row(f"{name}, {size}: GPU busy", machine.busy(stages[name]))
        yield from agreement(machine)


def network_rates(machine: Machine, image: NDArray[np.float32]) -> Iterator[Row]:
    """Measure both networks alone: on a stored image on the host, and on a batch that is on the device."""
    stored, pixel = stored_image(image)
    for task, name in (("denoise", "denoiser"), ("pick", "picker")):
        network, card = load_model(model_folder(name), task)
        if task == "pick":
            seen = working_image(
                stored, image_pixel_size_angstrom=pixel, diameter_angstrom=DIAMETER_ANGSTROM, card=card
            )
        else:
            seen = normalise(fourier_resize(stored, denoised_shape(stored.shape, pixel, card)))
        network = network.to(machine.device)
        one = machine.seconds(partial(infer, network, seen, device=machine.device))
        height, width = (side // network.stride * network.stride for side in seen.shape)
        batch = torch.from_numpy(np.ascontiguousarray(seen[:height, :width]))
        batch = batch.expand(TOGETHER, 1, -1, -1).contiguous().to(machine.device)
        together = machine.seconds(partial(answer, network, batch, machine)) / TOGETHER
        yield Row(
            f"network of {task} alone, {seen.shape[0]} x {seen.shape[1]}: images a second",
            f"{1 / one:.1f} one by one from the host, {1 / together:.1f} in batches of {TOGETHER} on it",
        )


def answer(network: UNet, batch: torch.Tensor, machine: Machine) -> torch.Tensor:
    """Run a network on a batch as emflow.inference does."""
    with torch.inference_mode(), torch.autocast(machine.device.type, torch.float16, enabled=machine.on_gpu):
        result: torch.Tensor = network(batch)
    return result


def agreement(machine: Machine) -> Iterator[Row]:
    """Compare picks and denoised images of two micrographs with the CPU's."""
    picker, card = load_model(model_folder("picker"), "pick")
    denoiser, denoiser_card = load_model(model_folder("denoiser"), "denoise")
    gaps, merits, alone, images = [0.0], [0.0], 0, [0.0]
    for number in range(2):
        stored, pixel = stored_image(read(number, machine.folder))
        found: list[Picks] = []
        clean = []
        for device in (machine.device, torch.device("cpu")):
            shared = {"image_pixel_size_angstrom": pixel, "device": device}
            clean.append(
                denoise_micrograph(stored, network=denoiser.to(device), card=denoiser_card, **shared)
            )
            found.append(
                pick_micrograph(
                    stored,
                    unbinned_shape=(4096, 4096),
                    diameter_angstrom=DIAMETER_ANGSTROM,
                    network=picker.to(device),
                    card=card,
                    **shared,
                )
            )
        images.append(float(np.abs(clean[0] - clean[1]).max()))
        here, there = (np.column_stack([one.x, one.y]) for one in found)
        gap, nearest = cKDTree(here).query(there)
        same = gap < 5
        gaps.extend(gap[same])
        merits.extend(np.abs(found[0].figure_of_merit[nearest] - found[1].figure_of_merit)[same])
        alone += int((~same).sum()) + len(here) - int(same.sum())
    yield Row(
        "pick, 2 micrographs: largest difference of GPU and CPU",
        f"{max(gaps):.3f} pixels, {max(merits):.1e} in figure of merit, over {len(gaps) - 1} picks; "
        f"{alone} candidates on one of both alone",
        "0.1 pixels, 1e-3",
    )
    yield Row("denoise, 2 micrographs: largest difference of GPU and CPU", f"{max(images):.1e} deviations")


def stored_image(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Return a micrograph as build_tiles stores it, and its pixel size."""
    side = 2 * round(len(image) * PIXEL_SIZE_ANGSTROM / STORED_PIXEL_SIZE_ANGSTROM / 2)
    pixel = PIXEL_SIZE_ANGSTROM * len(image) / side
    return flat_field(image, (side, side), outlier_sigmas=8.0, background_sigma_pixels=1000 / pixel), pixel


def read(number: int, folder: Path) -> NDArray[np.float32]:
    """Read one of the micrographs."""
    with mrcfile.open(folder / f"m{number:03d}.mrc", permissive=True) as mrc:
        return np.array(mrc.data, dtype=np.float32)


def make_micrographs(folder: Path, side: int, count: int) -> Path:
    """Write micrographs of discs under a CTF in noise, where there are none yet; return their table."""
    table = folder / "micrographs.tsv"
    if table.is_file():
        return table
    random = np.random.default_rng(0)
    y, x = np.indices((side, side), dtype=np.float32, sparse=True)
    radius = DIAMETER_ANGSTROM / 2 / PIXEL_SIZE_ANGSTROM
    specimen = np.zeros((side, side), dtype=np.float32)
    for centre in random.uniform(radius, side - radius, (side * side // 40_000, 2)):
        part = tuple(slice(max(0, int(c - radius)), int(c + radius) + 2) for c in centre)
        inside = (y[part[0]] - centre[0]) ** 2 + (x[:, part[1]] - centre[1]) ** 2 < radius**2
        specimen[part] += inside
    ctf = ctf_2d(
        (side, side), PIXEL_SIZE_ANGSTROM, defocus_u_angstrom=15000.0, defocus_v_angstrom=14500.0,
        defocus_angle_degrees=30.0, b_factor_square_angstrom=60.0, **OPTICS,
    )  # fmt: skip
    ice = random.normal(0, 1, (side, side)).astype(np.float32)
    image = np.fft.irfft2(ctf * np.fft.rfft2(2 * specimen + ice)) + random.normal(0, 2, (side, side))
    image = (100 + image).astype(np.float32)

    def write(number: int) -> MicrographRow:
        path = folder / f"m{number:03d}.mrc"
        with mrcfile.new(path, data=np.roll(image, 37 * number, (0, 1))) as mrc:
            mrc.voxel_size = PIXEL_SIZE_ANGSTROM
        optics = ("one", PIXEL_SIZE_ANGSTROM, *OPTICS.values())
        return MicrographRow(path.stem, "ok", "", str(path), side, side, *optics)

    with ThreadPoolExecutor(8) as pool:
        write_index(table, list(pool.map(write, range(count))), MicrographRow)
    return table
