"""Power spectra of micrographs by tiles, and their bins of radius and angle in which rings are fitted."""

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE_ANGSTROM = 1000.0  # wide enough for rings of 5 micrometre of defocus at 5 angstrom
FINEST_ANGSTROM = 3.0  # rings are looked for up to here
SMALLEST_PIXELS = 64  # side of an image that has a spectrum
SECTORS = 90  # bins of angle, over half a turn
# Lines of gain errors and of a tile's seams lie on the axes.
_AXIS_PIXELS = 1
_OUTLIER_SIGMAS = 6.0
# At the image's border a tile's window falls off over this part of its side.
_BORDER_PART = 8
# A CPU's cache holds few tiles; a GPU is idle between small pieces of work.
_PIXELS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 25}


@dataclass(frozen=True)
class PowerSpectrum:
    """The mean power of a micrograph's tiles over the half-plane of non-negative x.

    ``power`` float32 (2 r + 1, r + 1): rows are frequencies -r .. r along y, columns 0 .. r along x, each
    ``frequency_step`` (1/angstrom) apart. ``tiles`` is the number of tiles in it.
    """

    power: NDArray[np.float32]
    frequency_step: float
    tiles: int

    @property
    def radius(self) -> int:
        """The highest frequency of the axes, in pixels."""
        return int(self.power.shape[1]) - 1


def power_spectrum(
    images: NDArray[np.floating],
    *,
    pixel_size_angstrom: float,
    tile_angstrom: float = TILE_ANGSTROM,
    device: torch.device | str = "cpu",
) -> PowerSpectrum:
    """Return the mean power spectrum of tiles that overlap by half.

    Outlying pixels are clamped, each tile's mean is removed, a Hann window applied (at the image's border one
    that falls off late, so that what lies there counts as well), and its spectrum scaled to unit mean power
    within the band of rings, so that one dark or crowded tile does not outweigh the others (Welch, IEEE
    Trans. Audio Electroacoust. 15 (1967) 70). Tiles weigh by the energy of their window.

    Parameters
    ----------
    images
        Micrograph (h, w), or a stack (n, h, w) of images under one CTF.
    pixel_size_angstrom
        Of the images.
    tile_angstrom
        Wanted side of a tile; smaller where the image is.
    device
        Where it is computed.

    Raises
    ------
    ValueError
        If an image is smaller than 64 pixels, has pixels that are not finite, or is constant.
    """
    stack = np.asarray(images)
    stack = stack[None] if stack.ndim == 2 else stack
    height, width = stack.shape[-2:]
    mean = TilePower(
        (height, width), pixel_size_angstrom=pixel_size_angstrom, tile_angstrom=tile_angstrom, device=device
    )
    for image in stack:
        mean.add(torch.from_numpy(np.array(image, dtype=np.float32)))
    return mean.result()


class TilePower:
    """Adds up the power of the tiles of one image after another, all of one shape; see `power_spectrum`."""

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        pixel_size_angstrom: float,
        tile_angstrom: float = TILE_ANGSTROM,
        finest_angstrom: float = FINEST_ANGSTROM,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take the images' shape (h, w); frequencies beyond ``finest_angstrom`` are left out.

        Raises
        ------
        ValueError
            If it is smaller than 64 pixels.
        """
        height, width = shape
        if min(height, width) < SMALLEST_PIXELS:
            raise ValueError(f"image of {height} x {width} pixels is too small for a power spectrum")
        self._tile = tile = _tile_pixels(min(height, width), tile_angstrom / pixel_size_angstrom)
        self._radius = min(tile // 2 - 1, math.floor(tile * pixel_size_angstrom / finest_angstrom))
        self._step = 1 / (tile * pixel_size_angstrom)
        self._corners = [(y, x) for y in _origins(height, tile) for x in _origins(width, tile)]
        self._device = torch.device(device)
        self._windows = [
            torch.stack([_window(tile, one == 0, one == side - tile) for one in ones]).to(device)
            for side, ones in zip(shape, zip(*self._corners, strict=True), strict=True)
        ]
        self._band = _band(self._radius, tile * pixel_size_angstrom).to(device)
        side = self._radius + 1
        self._total = torch.zeros((2 * side - 1, side), dtype=torch.float64, device=device)
        self._weight = torch.zeros((), dtype=torch.float64, device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, image: Tensor) -> None:
        """Add an image (h, w) float32; ValueError if it has pixels that are not finite."""
        tile, radius = self._tile, self._radius
        clean = _clamped(image.to(self._device))
        together = max(1, _PIXELS_AT_ONCE[self._device.type] // tile**2)
        for first in range(0, len(self._corners), together):
            corners = self._corners[first : first + together]
            chunk = torch.stack([clean[y : y + tile, x : x + tile] for y, x in corners])
            rows, columns = (windows[first : first + together] for windows in self._windows)
            window = rows[:, :, None] * columns[:, None, :]
            whole = window.sum(dim=(-2, -1), keepdim=True)
            chunk = (chunk - (chunk * window).sum(dim=(-2, -1), keepdim=True) / whole) * window
            spectra = torch.fft.rfft2(chunk)[..., : radius + 1]
            spectra = torch.cat([spectra[:, tile - radius :], spectra[:, : radius + 1]], dim=1)
            power = spectra.real.square() + spectra.imag.square()
            scale = power[:, self._band].mean(dim=1)
            seen = window.square().mean(dim=(-2, -1)) * (scale > 0)
            power *= (seen / torch.where(scale > 0, scale, 1))[:, None, None]
            self._total += power.sum(dim=0, dtype=torch.float64)
            self._weight += seen.sum()
            self._count += (scale > 0).sum()

    def result(self) -> PowerSpectrum:
        """Return the mean; ValueError if all images were constant."""
        count = int(self._count)
        if count == 0:
            raise ValueError("image is constant")
        return PowerSpectrum((self._total / self._weight).float().cpu().numpy(), self._step, count)


def _window(tile: int, at_start: bool, at_end: bool) -> Tensor:
    """Return Hann's window, kept high up to the image's border: beyond it no other tile sees what is there.

    Of an image of two tiles a side Hann's alone would leave half of what it holds.
    """
    window = torch.hann_window(tile, periodic=True)
    half, ramp = tile // 2, max(2, tile // _BORDER_PART)
    rise = torch.sin((torch.arange(ramp) + 0.5) / ramp * (math.pi / 2)).square()
    if at_start:
        window[:half] = 1
        window[:ramp] = rise
    if at_end:
        window[half:] = 1
        window[-ramp:] = rise.flip(0)
    return window


def _tile_pixels(shortest_side: int, wanted: float) -> int:
    """Return an even side, quick to transform, that leaves an image at least two tiles a side if it can."""
    target = int(min(wanted, max(shortest_side / 2, 256), shortest_side))
    side = target - target % 2
    while scipy.fft.next_fast_len(side, real=True) != side or side % 2:
        side -= 1
    return side


def _origins(side: int, tile: int) -> list[int]:
    steps = math.ceil((side - tile) / (tile / 2))
    return [round(step * (side - tile) / max(steps, 1)) for step in range(steps + 1)]


def _clamped(image: Tensor) -> Tensor:
    sample = image[:: max(1, image.shape[0] // 1024), :: max(1, image.shape[1] // 1024)]
    centre = sample.median()
    spread = 1.4826 * (sample - centre).abs().median()
    if not bool(torch.isfinite(image.sum())):
        raise ValueError("image has pixels that are not finite")
    if not bool(spread > 0):
        spread = sample.std()
    # Without its offset the single-precision transform keeps its precision.
    return (image - centre).clamp(-_OUTLIER_SIGMAS * spread, _OUTLIER_SIGMAS * spread)


def _band(radius: int, tile_angstrom: float) -> Tensor:
    y = torch.arange(-radius, radius + 1)[:, None]
    x = torch.arange(radius + 1)[None, :]
    r = torch.sqrt((x * x + y * y).float()) / tile_angstrom
    band = (r >= 1 / 30) & (r <= 1 / 5)
    # Pixels too coarse for any ring: that is for the fit to say, the image is not to blame.
    return band if bool(band.any()) else torch.ones_like(band)


@dataclass(frozen=True)
class PolarGrid:
    """Bins of angle and radius over a half-plane of frequencies.

    All tensors are float32 (sectors, rings), over a bin's pixels: ``count``, and the means of k^2
    (``square``), of k_x^2 - k_y^2 (``cosine``) and of 2 k_x k_y (``sine``), in 1/angstrom^2, which are all
    that the phase of the CTF needs. ``index`` int64 (2 r + 1, r + 1) is each pixel's bin; those left out
    have the last one, ``sectors * rings``.
    """

    count: Tensor
    square: Tensor
    cosine: Tensor
    sine: Tensor
    index: Tensor
    frequency_step: float

    @property
    def frequency(self) -> Tensor:
        """The rings' frequencies in 1/angstrom, float32 (rings,)."""
        return torch.arange(self.count.shape[1], device=self.count.device) * self.frequency_step

    def cpu(self) -> "PolarGrid":
        """Return the same on the CPU."""
        tensors = (self.count, self.square, self.cosine, self.sine, self.index)
        count, square, cosine, sine, index = (one.cpu() for one in tensors)
        return replace(self, count=count, square=square, cosine=cosine, sine=sine, index=index)

    def mean(self, power: Tensor) -> Tensor:
        """Return the mean of half-planes (b, 2 r + 1, r + 1) in each bin, (b, sectors, rings); 0 if empty."""
        sums = torch.zeros((len(power), self.count.numel() + 1), device=power.device)
        sums.index_add_(1, self.index.reshape(-1), power.reshape(len(power), -1))
        return sums[:, :-1].reshape(len(power), *self.count.shape) / self.count.clamp(min=1)


def polar_grid(
    radius: int, frequency_step: float, *, sectors: int = SECTORS, device: torch.device | str = "cpu"
) -> PolarGrid:
    """Return the bins of a half-plane: ``sectors`` over half a turn, rings one frequency step wide.

    The first sector starts at the angle of -y; angles grow from x towards y, as RELION's do.
    """
    y = torch.arange(-radius, radius + 1, device=device)[:, None]
    x = torch.arange(radius + 1, device=device)[None, :]
    ring = torch.sqrt((x * x + y * y).double()).round().long()
    angle = torch.atan2(y.double(), x.double()) + math.pi / 2
    sector = (angle / math.pi * sectors).long().clamp(max=sectors - 1)
    used = (ring <= radius) & (x > _AXIS_PIXELS) & (y.abs() > _AXIS_PIXELS)
    rings = radius + 1
    index = torch.where(used, sector * rings + ring, sectors * rings)
    flat = index.reshape(-1)

    def sums(values: Tensor) -> Tensor:
        total = torch.zeros(sectors * rings + 1, dtype=torch.float64, device=device)
        total.index_add_(0, flat, values.double().expand(index.shape).reshape(-1))
        return total[:-1].reshape(sectors, rings)

    count = sums(torch.ones_like(index))
    divisor = count.clamp(min=1) / frequency_step**2
    return PolarGrid(
        count=count.float(),
        square=(sums(x * x + y * y) / divisor).float(),
        cosine=(sums(x * x - y * y) / divisor).float(),
        sine=(sums(2 * x * y) / divisor).float(),
        index=index,
        frequency_step=frequency_step,
    )
