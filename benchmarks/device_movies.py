"""Motion correction on a GPU and on the CPU, of one movie in memory."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from device_timing import Machine, Row, verdict
from numpy.typing import NDArray

from emflow.motion import CorrectedMovie, MotionEstimate, MotionField, correct_frames
from emflow.motion.frames import CleanFrames, motion_of

PIXEL_SIZE_ANGSTROM = 1.0
EXPOSURE = 1.0
WANTED_RATIO = 20.0


def measure_motion(machine: Machine) -> Iterator[Row]:
    """Measure a movie from raw frames in memory to its dose-weighted sum, on the device and on the CPU.

    Three parts: what is done once with the raw frames (bad pixels are looked for), the estimate (which cleans
    every frame and crops it), and the sum with the spectrum for CTFs (which cleans every frame again).
    Reading and writing are left out. The CPU has all threads, one round, and the same movie.
    """
    side, frames = machine.either(4096, 512), machine.either(24, 8)
    stack, truth = make_movie((side, side), frames, machine.device)
    here, cpu = Corrector(stack, machine.device), Corrector(stack, torch.device("cpu"))
    machine.forget_peak()
    seconds = machine.seconds(here.run, rounds=machine.either(3, 1))
    what = f"motion correction, {side} x {side} x {frames}"
    yield Row(f"{what}: s a movie", f"{seconds:.2f} ({here.parts()})")
    yield Row(f"{what}: peak memory", machine.peaks())
    error = np.sqrt(np.mean((here.courses() - relative(truth)) ** 2))
    yield Row(f"{what}: rms error of the motion, pixels", f"{error:.3f}")
    if not machine.on_gpu:
        return
    yield Row(f"{what}: GPU busy", machine.busy(here.run))
    began = time.perf_counter()
    cpu.run()
    on_cpu = time.perf_counter() - began
    yield Row(
        f"{what}: CPU of {machine.threads} threads over GPU",
        f"{on_cpu / seconds:.1f} ({on_cpu:.1f} s on the CPU: {cpu.parts()})",
        f"at least {WANTED_RATIO:g}: {verdict(on_cpu / seconds >= WANTED_RATIO)}",
    )
    yield Row(
        f"{what}: largest difference of GPU and CPU",
        f"{np.abs(here.courses() - cpu.courses()).max():.4f} pixels of motion, "
        f"{here.differs(cpu):.1e} of the sum's deviation",
        "0.1 pixels",
    )


class Corrector:
    """Corrects one movie on one device."""

    def __init__(self, stack: list[NDArray[np.uint8]], device: torch.device) -> None:
        self._stack, self._device = stack, device
        self._began: list[float] = []
        self.estimate: MotionEstimate | None = None
        self.sum: CorrectedMovie | None = None

    def run(self) -> None:
        """Do it all; each part ends with results on the host, so that clocks need no waiting."""
        self._began = [time.perf_counter()]
        frames = CleanFrames(self._stack, None, None, self._device)
        self._began.append(time.perf_counter())
        self.estimate = motion_of(
            frames,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            exposure_electrons_per_square_angstrom=EXPOSURE,
            voltage_kilovolt=300.0,
        )
        self._began.append(time.perf_counter())
        self.sum = correct_frames(
            frames,
            self.estimate.field,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            exposure_electrons_per_square_angstrom=EXPOSURE,
            power_exposure_electrons_per_square_angstrom=EXPOSURE,
        )
        self._began.append(time.perf_counter())

    def parts(self) -> str:
        """Return the seconds of the parts of the last run."""
        names = ("raw frames", "estimate", "sum")
        each = zip(names, np.diff(self._began), strict=True)
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in each)

    def courses(self) -> NDArray[np.float64]:
        """Return the motion found (frames, points, 2), in pixels, without a constant at each point."""
        assert self.estimate is not None
        return relative(self.estimate.field)

    def differs(self, other: "Corrector") -> float:
        """Return the largest difference of the sums, in deviations of a pixel."""
        assert self.sum is not None
        assert other.sum is not None
        difference = np.abs(self.sum.weighted - other.sum.weighted).max()
        return float(difference / other.sum.weighted.std())


def relative(field: MotionField) -> NDArray[np.float64]:
    """Return the displacement over a grid of 9 x 9 points, its mean over frames taken away."""
    along = [np.linspace(0.05 * side, 0.95 * side, 9) for side in field.shape]
    points = np.stack(np.meshgrid(*along, indexing="ij"), -1).reshape(-1, 2)
    found = field.displacement(points)
    return np.asarray(found - found.mean(0))


def make_movie(
    shape: tuple[int, int], frames: int, device: torch.device
) -> tuple[list[NDArray[np.uint8]], MotionField]:
    """Draw frames of one electron a pixel of a rough specimen that drifts and bends, and its motion.

    What emflow.simulation draws is truer and takes minutes at 4096 x 4096.
    """
    generator = torch.Generator(device).manual_seed(1)
    height, width = shape
    noise = torch.randn(shape, generator=generator, device=device)
    k_y = torch.fft.fftfreq(height, device=device)[:, None]
    k_x = torch.fft.rfftfreq(width, device=device)
    rough = torch.fft.irfft2(torch.fft.rfft2(noise) * torch.exp(-40 * (k_y**2 + k_x**2)), s=shape)
    scene = 1 + 0.25 * (rough / rough.std()).clamp(-3, 3)
    course = 1 - np.exp(-3 * np.arange(frames) / frames)
    # Terms of degree 0, 1 (y, x) and 2 (yy, yx, xx) in the order of the field; (y, x) each.
    final = np.array([[8, -5], [1, 2], [-2, 1], [1, 0], [0, -1], [1, 1]], dtype=np.float64)
    field = MotionField(shape, 2, course[:, None, None] * final)
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None] * (2 / height) - 1
    x = torch.arange(width, device=device, dtype=torch.float32)[None] * (2 / width) - 1
    basis = [
        torch.ones_like(y + x),
        y + 0 * x,
        x + 0 * y,
        (3 * y**2 - 1) / 2 + 0 * x,
        y * x,
        (3 * x**2 - 1) / 2 + 0 * y,
    ]
    stack = []
    for coefficients in field.coefficients:
        moved = [sum(float(c) * term for c, term in zip(part, basis, strict=True)) for part in coefficients.T]
        rows = (torch.arange(height, device=device)[:, None] - moved[0]) * (2 / (height - 1)) - 1
        columns = (torch.arange(width, device=device)[None] - moved[1]) * (2 / (width - 1)) - 1
        seen = torch.nn.functional.grid_sample(
            scene[None, None],
            torch.stack([columns, rows], -1)[None],
            mode="bilinear",
            padding_mode="reflection",
            align_corners=True,
        )
        electrons = torch.poisson(seen[0, 0].clamp(min=0), generator=generator)
        stack.append(electrons.clamp(max=255).to(torch.uint8).cpu().numpy())
    return stack, field
