"""Patches of a movie in Fourier space: how likely a motion is, and which way it should change.

With an image S of power spectrum P under white noise of power N in every frame, all patches independent, the
logarithm of the likelihood of displacements d (frames), the image integrated out, is, up to a constant,

    L(d) = sum_k  P / (N (N + P sum_f q_f^2)) |sum_f q_f X_f exp(2 pi i k d_f)|^2

over half of Fourier space, where q_f is what damage left of the amplitude. All pairs of frames take part,
each frequency weighs what its signal is worth, and L is in nats, so that priors can be weighed against it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Fraction of a patch's side over which its edge fades.
_TAPER = 0.12
# Patches are worked on in groups of about this many Fourier coefficients: in cache, and not all in memory
# twice. A GPU is idle between small groups.
_GROUP_COEFFICIENTS = {"cpu": 4_000_000, "cuda": 32_000_000}


def patch_centres(shape: tuple[int, int], side: int) -> NDArray[np.float64]:
    """Return the centres (y, x) of patches that tile an image, (n, 2); they overlap a little if they must."""
    axes = []
    for length in shape:
        count = max(1, math.ceil(length / side - 0.25))
        first, last = (side - 1) / 2, length - 1 - (side - 1) / 2
        axes.append(np.linspace(first, last, count) if count > 1 else np.array([(length - 1) / 2]))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def window(side: int) -> Tensor:
    """Return a square window (side, side) that fades at its edges, of mean square 1."""
    ramp = (torch.arange(side, dtype=torch.float32) + 0.5) / (side * _TAPER)
    ramp = torch.minimum(ramp, ramp.flip(0)).clamp(max=1)
    profile = torch.sin(0.5 * math.pi * ramp) ** 2
    result = profile[:, None] * profile[None, :]
    return result / result.square().mean().sqrt()


@dataclass(frozen=True)
class Band:
    """The Fourier coefficients that take part, in a rectangle of rows and columns of a patch's transform.

    A whole rectangle costs less than to gather those coefficients that lie between the two frequencies.
    """

    side: int
    rows: Tensor  # int64 (r,): of the patch's transform
    columns: int  # its first ones
    inside: Tensor  # float32 (r * columns,): 1 where a coefficient takes part, 0 elsewhere
    frequency_yx: Tensor  # float32 (r * columns, 2)
    ring: Tensor  # int64 (r * columns,); 0 where none takes part
    rings: int

    @staticmethod
    def of(side: int, lowest: float, highest: float, device: torch.device) -> "Band":
        """Return half of a patch's Fourier space between two frequencies (cycles per pixel)."""
        rows = (torch.fft.fftfreq(side, device=device).abs() <= highest).nonzero()[:, 0]
        k_y = torch.fft.fftfreq(side, device=device)[rows][:, None]
        k_x = torch.fft.rfftfreq(side, device=device)
        k_x = k_x[None, k_x <= highest]
        k = (k_y**2 + k_x**2).sqrt()
        # Of the column kx = 0 the negative half repeats the positive one; so does the Nyquist column.
        half = (k_x > 0) | (k_y > 0)
        inside = (half & (k >= lowest) & (k <= highest) & (k_x < 0.5) & (k_y > -0.5)).flatten()
        ring = (k.flatten() * side).round().long() * inside
        frequency = torch.stack([k_y.expand_as(k), k_x.expand_as(k)], -1).reshape(-1, 2)
        return Band(side, rows, k_x.shape[1], inside.float(), frequency, ring, side // 2 + 1)


@dataclass(frozen=True)
class Spectra:
    """Power of signal and noise by ring (rings,), and each patch's factors on both (patches,)."""

    signal: Tensor
    noise: Tensor
    signal_of_patch: Tensor
    noise_of_patch: Tensor


@dataclass(frozen=True)
class Look:
    """What one pass over all patches finds at given displacements.

    ``likelihood`` in nats; ``pull`` float64 (frames, patches, 2) is its gradient, in nats per pixel of the
    working image; ``cross`` and ``power`` (patches, rings) are sums that `spectra` takes.
    """

    likelihood: float
    pull: NDArray[np.float64]
    cross: Tensor
    power: Tensor


class Patches:
    """All patches of a movie at its working pixel size."""

    def __init__(
        self,
        frames: Tensor,
        side: int,
        *,
        lowest: float,
        highest: float,
        remaining: Tensor | None = None,
    ) -> None:
        """Take frames (frames, h, w) float32 and what damage left (frames, rings), or None for all of it."""
        self.frames = frames
        self.side = min(side, *frames.shape[1:])
        self.side -= self.side % 2
        self.device = frames.device
        self.centres = patch_centres((frames.shape[1], frames.shape[2]), self.side)
        self.band = Band.of(self.side, lowest, highest, self.device)
        self._window = window(self.side).to(self.device)
        # Neighbouring coefficients of a faded patch are not independent: so many of them count as one.
        self.independent = float(1 / (self._window**4).mean())
        count = len(frames)
        self.remaining = (
            torch.ones(count, self.band.rings, device=self.device) if remaining is None else remaining
        )
        self.in_ring = torch.bincount(self.band.ring, self.band.inside, minlength=self.band.rings)
        # What is left of each frame's coefficients after damage, (frames, n, k), and what no motion changes
        # of them: their own part of the sum's power, and their mean power as recorded, (n, rings).
        self._coefficients: Tensor | None = None
        self._own = torch.zeros(len(self.centres), self.band.rings, device=self.device)
        self._power = torch.zeros_like(self._own)
        self._origin = np.zeros((count, len(self.centres), 2))

    def cut(self, displacement: NDArray[np.float64]) -> None:
        """Cut the patches out anew where the specimen stands, to the pixel: displacement (frames, n, 2)."""
        side, device = self.side, self.device
        corner = np.rint(self.centres - (side - 1) / 2).astype(int)
        highest = np.asarray(self.frames.shape[1:]) - side
        place = np.clip(corner + np.rint(displacement).astype(int), 0, highest)
        self._origin = (place - corner).astype(np.float64)
        count = len(self.centres)
        size = len(self.band.ring)
        result = torch.empty((len(self.frames), count, size), dtype=torch.complex64, device=device)
        remaining = self.remaining[:, self.band.ring]
        own = torch.zeros((count, size), device=device)
        power = torch.zeros_like(own)
        for number, frame in enumerate(self.frames):
            cut = _windows(frame, place[number], side)
            cut = (cut - cut.mean((1, 2), keepdim=True)) * self._window
            transform = torch.fft.rfft2(cut, norm="ortho")[:, self.band.rows, : self.band.columns]
            torch.mul(transform.flatten(1), self.band.inside, out=result[number])
            squares = torch.view_as_real(result[number]).square().sum(-1)
            power += squares
            own += squares * remaining[number] ** 2
            result[number] *= remaining[number]
        self._coefficients = result
        self._own, self._power = self._by_ring(own), self._by_ring(power / len(self.frames))

    def _by_ring(self, values: Tensor) -> Tensor:
        """Return the sums (n, rings) of values (n, k)."""
        sums = torch.zeros(len(values), self.band.rings, device=self.device)
        return sums.scatter_add_(1, self.band.ring.expand_as(values), values)

    def off_by(self, displacement: NDArray[np.float64]) -> float:
        """Return by how many pixels the patches stand off the displacement, where they could follow."""
        if self._coefficients is None:
            return math.inf
        side = self.side
        corner = np.rint(self.centres - (side - 1) / 2).astype(int)
        highest = np.asarray(self.frames.shape[1:]) - side
        place = np.clip(corner + np.rint(displacement).astype(int), 0, highest)
        return float(np.abs(place - corner - self._origin).max())

    def _groups(self) -> Iterator[slice]:
        size = max(1, _GROUP_COEFFICIENTS[self.device.type] // (len(self.frames) * len(self.band.ring)))
        for start in range(0, len(self.centres), size):
            yield slice(start, start + size)

    def look(
        self, displacement: NDArray[np.float64], spectra: Spectra | None, blur_variance: float = 0.0
    ) -> Look:
        """Look at the movie with the specimen displaced by ``displacement`` (frames, n, 2).

        ``blur_variance`` in square pixels damps frequencies that the displacement's error would turn round.
        """
        if self._coefficients is None:
            raise RuntimeError("cut the patches first")
        band = self.band
        weight = None if spectra is None else self.weights(spectra, blur_variance) * self.independent
        left = torch.from_numpy(displacement - self._origin).to(self.device)
        pulls, likelihood = [], 0.0
        cross = torch.zeros_like(self._own)
        k_y = torch.fft.fftfreq(self.side, device=self.device)[band.rows]
        k_x = torch.fft.rfftfreq(self.side, device=self.device)[: band.columns]
        one = torch.ones((), device=self.device)
        for group in self._groups():
            shift = left[:, group].to(torch.float32)
            turn_y = torch.polar(one, 2 * math.pi * shift[..., :1] * k_y)
            turn_x = torch.polar(one, 2 * math.pi * shift[..., 1:] * k_x)
            aligned = (turn_y[..., None] * turn_x[..., None, :]).flatten(2)
            aligned *= self._coefficients[:, group]
            total = aligned.sum(0)
            both = torch.view_as_real(total).square().sum(-1)
            cross[group] = self._by_ring(both) - self._own[group]
            if weight is None:
                continue
            w = weight[group][:, band.ring]
            likelihood += float((w * both).sum())
            # d|A|^2/dd = -4 pi k Im(A* Y): in real numbers one product, which reads Y once.
            turned = torch.view_as_real(total * 1j * w)[..., None] * band.frequency_yx[:, None]
            real = torch.view_as_real(aligned).flatten(2).transpose(0, 1)  # (p, f, 2 k)
            pulls.append(-4 * math.pi * torch.bmm(real, turned.flatten(1, 2)).transpose(0, 1))
        pull = torch.cat(pulls, 1).double().cpu().numpy() if pulls else np.zeros((*displacement.shape[:2], 2))
        return Look(likelihood, pull, cross, self._power)

    def spectra(self, look: Look) -> Spectra:
        """Estimate the spectra from what frames have in common and what they have not."""
        q = self.remaining
        pairs = (q**2).sum(0) ** 2 - (q**4).sum(0)  # (rings,)
        patches = len(self.centres)
        count = self.in_ring.clamp(min=1) * patches
        own_power = look.power.sum(0) / count
        raw = look.cross.sum(0) / count / pairs.clamp(min=1e-6)
        # Deviation of that mean when there is nothing in common.
        deviation = own_power * (pairs / 2).clamp(min=0.5).sqrt() * 2 / pairs.clamp(min=1e-6)
        deviation = deviation / (count * self.independent).sqrt()
        smooth = _smoothed(raw, self.in_ring)
        signal = torch.where(smooth > 0, smooth * smooth / (smooth + deviation), torch.zeros_like(smooth))
        signal[self.in_ring == 0] = 0
        mean_q2 = (q**2).mean(0)
        noise = (own_power - signal * mean_q2).clamp(min=1e-3 * own_power.max())
        # How much stronger a patch is than the average one
        high = slice(int(0.6 * len(noise)), None)
        of_noise = look.power[:, high].sum(1) / (look.power[:, high].sum() / patches)
        worth = signal / noise**2 * pairs
        expected = (worth * signal * self.in_ring).sum()
        strength = (look.cross / pairs.clamp(min=1e-6) * worth).sum(1) / expected.clamp(min=1e-20)
        error2 = ((worth * deviation) ** 2 * self.in_ring**2 * patches).sum() / expected.clamp(min=1e-20) ** 2
        # Shrunk towards the average by how well it is known
        spread = ((strength - 1) ** 2).mean() - error2
        part = float((spread / (spread + error2)).clamp(0, 1)) if float(error2) > 0 else 1.0
        of_signal = (1 + part * (strength - 1)).clamp(0.05, 6.0)
        return Spectra(signal, noise, of_signal, of_noise.clamp(0.2, 5.0))

    def weights(self, spectra: Spectra, blur_variance: float = 0.0) -> Tensor:
        """Return P / (N (N + P sum q^2)) by patch and ring, (patches, rings)."""
        signal = spectra.signal_of_patch[:, None] * spectra.signal
        noise = spectra.noise_of_patch[:, None] * spectra.noise
        k = torch.arange(self.band.rings, device=self.device) / self.side
        damp = torch.exp(-4 * math.pi**2 * k**2 * blur_variance)
        return damp * signal / (noise * (noise + signal * (self.remaining**2).sum(0)))

    def information(
        self, spectra: Spectra, blur_variance: float = 0.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the expected curvature of the likelihood: frames (f, f) of a mean patch, and factors (n,).

        For each axis; of isotropic signals. The factors have mean 1.
        """
        weight = self.weights(spectra, blur_variance)
        signal = spectra.signal_of_patch[:, None] * spectra.signal
        k = torch.arange(self.band.rings, device=self.device) / self.side
        # sum over a ring of (2 pi k_axis)^2 * 2 W P
        density = weight * signal * (2 * math.pi * k) ** 2 * self.in_ring * self.independent
        q2 = self.remaining.double() ** 2
        total = (density.double() * q2.sum(0) ** 2).sum(1)
        mean = density.double().mean(0)
        curvature = torch.diag((mean * q2 * q2.sum(0)).sum(1)) - (q2 * mean) @ q2.T
        factors = total / total.mean().clamp(min=1e-300)
        return curvature.cpu().numpy(), factors.cpu().numpy()


def _windows(frame: Tensor, places: NDArray[np.int64], side: int) -> Tensor:
    """Return the squares (n, side, side) of a frame whose first pixels are at ``places`` (n, 2)."""
    if frame.device.type == "cpu":
        return torch.stack([frame[y : y + side, x : x + side] for y, x in places.tolist()])
    y, x = torch.from_numpy(places).to(frame.device).T  # all in one go
    return frame.unfold(0, side, 1).unfold(1, side, 1)[y, x]


def _smoothed(values: Tensor, weights: Tensor) -> Tensor:
    kernel = torch.tensor([[[0.25, 0.5, 0.25]]], device=values.device)
    padded = torch.nn.functional.conv1d((values * weights)[None, None], kernel, padding=1)
    norm = torch.nn.functional.conv1d(weights[None, None], kernel, padding=1)
    return (padded / norm.clamp(min=1e-9))[0, 0]
