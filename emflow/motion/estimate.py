"""Motion of a movie: the drift of the whole and the local motion, fitted together."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emflow.motion.dose import damage_amplitude
from emflow.motion.drift import find_drift
from emflow.motion.field import MotionField, basis_values, degrees_of_basis
from emflow.motion.patches import Patches, Spectra
from emflow.motion.prior import covariances, regress, rest

# Deviations that no specimen exceeds
_LARGEST_DRIFT_ANGSTROM = 40.0
_LARGEST_LOCAL_ANGSTROM = 10.0

# Degrees in space are solved for in turn, so many times: each knows what the others became.
_SWEEPS = 3


@dataclass(frozen=True)
class MotionSettings:
    """How the motion is sought.

    ``working_pixel_size_angstrom`` is what frames are Fourier-cropped to (never finer than recorded);
    ``patch_angstrom`` the side of the patches, whose motions are never fitted one by one; ``degree`` the
    highest total degree in space; ``maximum_drift_angstrom`` how far from its mean position the specimen
    may go.
    """

    working_pixel_size_angstrom: float = 2.0
    patch_angstrom: float = 200.0
    degree: int = 4
    maximum_drift_angstrom: float = 60.0
    iterations: int = 12


@dataclass(frozen=True)
class MotionEstimate:
    """The motion, and what speaks for it: log evidence of each degree in space over none, in nats."""

    field: MotionField
    gains: tuple[float, ...]
    iterations: int


def working_shape(
    shape: tuple[int, int], pixel_size_angstrom: float, settings: MotionSettings
) -> tuple[int, int]:
    """Return the even (h, w) to which frames are cropped in Fourier space before `estimate_motion`."""
    ratio = min(1.0, pixel_size_angstrom / settings.working_pixel_size_angstrom)
    return (2 * round(shape[0] * ratio / 2), 2 * round(shape[1] * ratio / 2))


def fourier_crop(frames: Tensor, shape: tuple[int, int]) -> Tensor:
    """Crop the Fourier transform of images (n, h, w) to even sides, the mean kept: (n, *shape) float32."""
    height, width = frames.shape[1:]
    if (height, width) == tuple(shape):
        return frames
    spectrum = torch.fft.rfft2(frames, norm="forward")
    rows, columns = min(height, shape[0]) // 2, min(width, shape[1]) // 2
    result = torch.zeros(
        (len(frames), shape[0], shape[1] // 2 + 1), dtype=spectrum.dtype, device=frames.device
    )
    result[:, :rows, :columns] = spectrum[:, :rows, :columns]
    result[:, shape[0] - rows + 1 :, :columns] = spectrum[:, height - rows + 1 :, :columns]
    cropped: Tensor = torch.fft.irfft2(result, s=shape, norm="forward")
    return cropped


def estimate_motion(
    frames: Tensor,
    *,
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    exposure_electrons_per_square_angstrom: float | None = None,
    voltage_kilovolt: float = 300.0,
    settings: MotionSettings | None = None,
) -> MotionEstimate:
    """Estimate the motion of a movie.

    Parameters
    ----------
    frames
        (n, h, w) float32 of `working_shape`, gain and bad pixels corrected.
    shape
        (h, w) of the frames as recorded, in whose pixels the field is stated.
    pixel_size_angstrom
        As recorded.
    exposure_electrons_per_square_angstrom
        A frame; given, frames count the less the more damage they show.
    """
    settings = MotionSettings() if settings is None else settings
    count = len(frames)
    if count < 2:
        return MotionEstimate(MotionField.zero(shape, count), (), 0)
    working = (int(frames.shape[1]), int(frames.shape[2]))
    scale = np.array([shape[0] / working[0], shape[1] / working[1]])
    pixel = pixel_size_angstrom * float(scale.mean())

    # The drift, at twice the working pixel size
    coarse_shape = (2 * round(working[0] / 4), 2 * round(working[1] / 4))
    coarse = fourier_crop(frames, coarse_shape)
    drift = find_drift(
        coarse, reach_pixels=settings.maximum_drift_angstrom / (2 * pixel), creep_pixels=1.0 / (2 * pixel)
    )
    shifts = drift.shifts * (np.asarray(working) / coarse_shape)

    side = 2 * round(settings.patch_angstrom / pixel / 2)
    highest = 0.47
    patches = Patches(frames, side, lowest=2.5 / side, highest=highest)
    if exposure_electrons_per_square_angstrom is not None:
        patches.remaining = _remaining(
            patches, pixel, exposure_electrons_per_square_angstrom, voltage_kilovolt, count
        )
    degree = settings.degree
    while degree and 3 * len(degrees_of_basis(degree)) > 2 * len(patches.centres):
        degree -= 1
    fit = _Fit(patches, shape, scale, degree, shifts, pixel)
    done, blur = 0, 4 * drift.variance + 0.1
    for iteration in range(settings.iterations):
        top = 0 if iteration < 2 else min(degree, 2 * (iteration - 1))
        change = fit.step(top, blur)
        done = iteration + 1
        if top == degree and change < 0.02 and blur < 1.05 * fit.uncertainty + 0.003:
            break
        blur = max(0.25 * blur, fit.uncertainty)
    fit.fall_back(blur)
    return MotionEstimate(fit.field().relative_to(0), tuple(p.gain for p in fit.posteriors), done)


def expand_groups(estimate: MotionEstimate, group: int, frames: int) -> MotionEstimate:
    """Return the motion of single frames from that of sums of ``group``, linear between their middles."""
    if group == 1:
        return estimate
    field = estimate.field
    first = np.arange(field.frames) * group
    middle = (first + np.minimum(first + group, frames) - 1) / 2
    flat = field.coefficients.reshape(field.frames, -1)
    fine = np.stack([np.interp(np.arange(frames), middle, course) for course in flat.T], -1)
    expanded = MotionField(field.shape, field.degree, fine.reshape(frames, *field.coefficients.shape[1:]))
    return MotionEstimate(expanded.relative_to(0), estimate.gains, estimate.iterations)


def _remaining(patches: Patches, pixel: float, exposure: float, voltage: float, count: int) -> Tensor:
    frequency = np.arange(patches.band.rings) / (patches.side * pixel)
    rows = [damage_amplitude(frequency, (frame + 0.5) * exposure, voltage) for frame in range(count)]
    return torch.from_numpy(np.stack(rows)).float().to(patches.device)


class _Fit:
    """Newton's method on the posterior of the field, its prior's strengths found anew at each step."""

    def __init__(
        self,
        patches: Patches,
        shape: tuple[int, int],
        scale: NDArray[np.float64],
        degree: int,
        shifts: NDArray[np.float64],
        pixel_size_angstrom: float,
    ) -> None:
        self.patches, self.shape, self.scale, self.degree = patches, shape, scale, degree
        degrees = [a + b for a, b in degrees_of_basis(degree)]
        self._members = [[n for n, d in enumerate(degrees) if d == total] for total in range(degree + 1)]
        working = (int(patches.frames.shape[1]), int(patches.frames.shape[2]))
        self._values = basis_values(patches.centres, working, degree)  # (patches, terms)
        frames = len(patches.frames)
        # In working pixels, (frames, terms, 2), of the Legendre basis
        self.coefficients = np.zeros((frames, len(degrees), 2))
        self.coefficients[:, 0] = shifts - shifts[0]
        self._kernels = [covariances(frames, white=total == 0) for total in range(degree + 1)]
        empty = np.zeros((1, frames))
        self.posteriors = [rest(empty, kernels) for kernels in self._kernels]
        self._largest = [
            ((_LARGEST_LOCAL_ANGSTROM if total else _LARGEST_DRIFT_ANGSTROM) / pixel_size_angstrom) ** 2
            for total in range(degree + 1)
        ]
        self._spectra: Spectra | None = None
        self._left, self._total_told = [0.0] * (degree + 1), 1.0
        self._part, self._change = 1.0, math.inf

    @property
    def uncertainty(self) -> float:
        """Variance of the displacement in a frame, an axis, in square working pixels, by signal.

        Frames of noise alone may tell nothing: 0 lets the blur shrink by itself then.
        """
        return sum(self._left) / self._total_told if self._total_told > 0 else 0.0

    def field(self) -> MotionField:
        return MotionField(self.shape, self.degree, self.coefficients * self.scale)

    def displacement(self) -> NDArray[np.float64]:
        """Return that of each patch, (frames, patches, 2), in working pixels."""
        return np.asarray(np.einsum("pt,fta->fpa", self._values, self.coefficients))

    def step(self, top: int, blur: float) -> float:
        """Take a step, with degrees up to ``top``; return the largest change in working pixels."""
        patches = self.patches
        before = self.displacement()
        if patches.off_by(before) > 1:
            patches.cut(before)
        if self._spectra is None:
            self._spectra = patches.spectra(patches.look(before, None))
        look = patches.look(before, self._spectra, blur)
        curvature, factors = patches.information(self._spectra, blur)
        values = self._values
        pulls = np.einsum("pt,fpa->fta", values, look.pull)
        told = (values.T * factors) @ values  # what the patches tell of the terms, (terms, terms)
        target = np.zeros_like(self.coefficients)  # steps towards the most probable field
        for _ in range(_SWEEPS):
            for degree, members in enumerate(self._members[: top + 1]):
                self._improve(degree, members, curvature, told, pulls, target)
        self.coefficients = self.coefficients + self._part * (target - target[:1])
        self._total_told = float(factors.sum())
        self._spectra = patches.spectra(look)
        after = self.displacement()
        change = float(np.abs((after - before) - (after - before).mean(0)).max())
        if top == self.degree and change > 0.6 * self._change:
            self._part = max(0.3, 0.7 * self._part)  # it swings: take shorter steps
        self._change = change if top == self.degree else math.inf
        return change

    def _improve(
        self,
        degree: int,
        members: list[int],
        curvature: NDArray[np.float64],
        told: NDArray[np.float64],
        pulls: NDArray[np.float64],
        target: NDArray[np.float64],
    ) -> None:
        """Find the terms of one degree, the others given; change their ``target`` (frames, terms, 2).

        The prior is the same for all terms of a degree, however they are turned into one another, so they
        are turned into such as the movie tells of independently. (Scaling them by what it tells would let
        those that it says nothing of run away.)
        """
        scales, turn = np.linalg.eigh(told[np.ix_(members, members)])
        scales = scales.clip(min=1e-6 * max(scales[-1], 1e-300))
        missing = np.einsum("mt,fta->fma", told[members], target)
        pull = pulls[:, members] - np.einsum("fg,gma->fma", curvature, missing)
        at = self.coefficients[:, members] + target[:, members]
        pull, at = (np.einsum("fma,mi->ifa", part, turn) for part in (pull, at))
        asked = pull + scales[:, None, None] * np.einsum("fg,iga->ifa", curvature, at)
        known = self.posteriors[degree].variances
        result = regress(
            asked.transpose(0, 2, 1).reshape(2 * len(members), -1),
            curvature,
            np.repeat(scales, 2),
            self._kernels[degree],
            largest_variance=self._largest[degree],
            start=known if known.any() else None,
        )
        self.posteriors[degree] = result
        self._left[degree] = float((result.uncertainty * np.repeat(scales, 2)).sum() / 2)
        courses = result.courses.reshape(len(members), 2, -1)
        wanted = np.einsum("iaf,mi->fma", courses, turn)
        target[:, members] = wanted - self.coefficients[:, members]

    def fall_back(self, blur: float) -> None:
        """Give up the local motion, or all motion, if the movie is no likelier with it than without.

        The steps judge by the likelihood's curvature; this looks at the likelihood itself.
        """
        if self._spectra is None:
            return
        found = self.coefficients
        shared = found.copy()
        shared[:, 1:] = 0
        fields = (found, shared, np.zeros_like(found))
        likelihoods = []
        for coefficients in fields:  # first the one whose patches are cut out already
            self.coefficients = coefficients
            displacement = self.displacement()
            if self.patches.off_by(displacement) > 1:
                self.patches.cut(displacement)
            likelihoods.append(self.patches.look(displacement, self._spectra, blur).likelihood)
        penalties = [sum(p.penalty for p in self.posteriors), self.posteriors[0].penalty, 0.0]
        scores = np.array(likelihoods) - penalties
        self.coefficients = fields[int(scores.argmax())]
