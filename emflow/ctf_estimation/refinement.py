"""Refinement of the rings' parameters together with background and amplitude, for many starts at once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from emflow.ctf_estimation.rings import Microscope, ctf_phase, ring_contrast, sector_cosines, spline_basis
from emflow.ctf_estimation.search import SearchRange
from emflow.ctf_estimation.spectrum import PolarGrid

_BASELINE_SPLINES = 8
# Usual second difference of a baseline's splines, in log power. Near focus the band holds two or three
# rings, and a baseline free to bend takes them for its own.
_BASELINE_BEND = 0.1
_ANISOTROPY_SPLINES = 4
_AMPLITUDE_SPLINES = 5
# Units of the parameters inside the solver, and the longest step in them: a quarter of a ring's width.
_UNITS = (100.0, 100.0, 100.0, 0.2)
_LONGEST_STEP = 1.5
_HUBER_SIGMAS = 3.0
_USUAL_ASTIGMATISM = 1000.0
_EXCLUDED = 1e8
_EQUAL_GAIN = 0.02


@dataclass(frozen=True)
class RingFit:
    """Fits of rings to log power, for b spectra and s starts each.

    ``parameters`` (b, s, 4) as `search` gives them; ``gain`` (b, s) the chi-square that rings explain
    beyond the background, less a weak prior on astigmatism; ``baseline`` (b, s, sectors, rings)
    of the log power, zero in rings that were not fitted; ``covariance`` (b, s, n, n) float64 of the n
    parameters that were free, from the curvature of chi-square, none of it known before the second step.
    """

    parameters: Tensor
    gain: Tensor
    baseline: Tensor
    covariance: Tensor

    def take(self, which: Tensor) -> "RingFit":
        """Return one start per spectrum, by its number (b,)."""
        rows = torch.arange(len(which), device=which.device)
        return RingFit(
            self.parameters[rows, which][:, None],
            self.gain[rows, which][:, None],
            self.baseline[rows, which][:, None],
            self.covariance[rows, which][:, None],
        )


def refine(
    log_power: Tensor,
    weights: Tensor,
    grid: PolarGrid,
    microscope: Microscope,
    starts: Tensor,
    *,
    wanted: SearchRange,
    iterations: int,
) -> RingFit:
    """Refine starts by damped Gauss-Newton steps on robustly weighted least squares.

    The model of a bin's log power is baseline(k) + anisotropic baseline(k, angle) - a(k) cos(2 phase), with
    splines for both baselines and the amplitude a, which must not be negative. The baseline's second
    differences have a normal prior: it is smooth unless much says otherwise. The model is linear in
    all but the 3 or 4 parameters of the phase, so each step solves for the splines and the steps at once.
    Maximising what the rings explain is maximising their correlation with the data, each ring weighted by its
    own signal.

    Parameters
    ----------
    log_power, weights
        (b, sectors, rings).
    grid
        Their bins.
    microscope
        Its constants.
    starts
        (b, s, 4).
    wanted
        The ranges that parameters stay in; without a range the phase shift keeps its start.
    iterations
        Number of steps.
    """
    used = (weights.sum(dim=(0, 1)) > 0).nonzero()[:, 0]
    rings = slice(int(used[0]), int(used[-1]) + 1)
    fixed, amplitude_basis = _bases(grid, rings)
    shape = grid.count[:, rings].shape
    square, cosine, sine = (t[:, rings].reshape(-1) for t in (grid.square, grid.cosine, grid.sine))
    data = log_power[..., rings].flatten(1)[:, None]
    base_weights = weights[..., rings].flatten(1)[:, None]
    spread = amplitude_basis.repeat(shape[0], 1)  # (bins, splines)
    stiffness = _stiffness(fixed.shape[1] + spread.shape[1], data.device)
    units = torch.tensor(_UNITS, device=data.device)
    free = 3 if wanted.phase_shift_degrees is None else 4
    b, s = starts.shape[:2]
    n_fixed, n_amplitude = fixed.shape[1], spread.shape[1]
    parameters = starts.clone()
    best: RingFit | None = None
    robust = torch.ones_like(base_weights).expand(b, s, -1)
    amplitude = torch.full((b, s, n_amplitude), 0.0, device=data.device)
    for iteration in range(iterations + 1):
        p = parameters[..., None]
        phase = 2 * ctf_phase(
            microscope,
            square,
            cosine,
            sine,
            defocus=p[..., 0, :],
            astigmatism_cosine=p[..., 1, :],
            astigmatism_sine=p[..., 2, :],
            phase_shift=p[..., 3, :],
        )
        contrast = ring_contrast(microscope, square, p[..., 0, :], 1 / grid.frequency_step)
        model = -torch.cos(phase) * contrast
        slope = 2 * torch.sin(phase) * contrast * (amplitude @ spread.T)
        wavelength = math.pi * microscope.wavelength_angstrom
        directions = [slope * wavelength * term for term in (square, cosine, sine)] + [slope]
        design = torch.cat(
            [
                fixed.expand(b, s, -1, -1),
                model[..., None] * spread,
                torch.stack(directions[:free], dim=-1) * units[:free],
            ],
            dim=-1,
        )
        w = base_weights * robust
        weighted = design * w[..., None]
        normal = (design.transpose(-1, -2) @ weighted).double()
        normal[..., : len(stiffness), : len(stiffness)] += stiffness
        target = (weighted.transpose(-1, -2) @ data.expand(b, s, -1)[..., None]).double()[..., 0]
        size = normal.shape[-1]
        ridge = 1e-7 * normal.diagonal(dim1=-2, dim2=-1).mean(dim=-1, keepdim=True).expand(b, s, size).clone()
        steps = slice(size - free, size)
        splines = slice(n_fixed, n_fixed + n_amplitude)
        # The prior on astigmatism, and a little damping, both in chi-square.
        ridge[..., steps] += 1e-2 * normal.diagonal(dim1=-2, dim2=-1)[..., steps] + 1e-3
        # What stands now: rings without a step; then the step from there.
        # Each spectrum's own: its result must not depend on what it is batched with.
        excluded = _EXCLUDED * normal.diagonal(dim1=-2, dim2=-1).amax(dim=-1, keepdim=True)
        still = ridge.clone()
        still[..., steps] = excluded
        now = _non_negative(normal, target, still, splines)
        none = still.clone()
        none[..., splines] = excluded
        background = _solve(normal, target, none)
        gain = (target * now).sum(-1) - (target * background).sum(-1)
        gain = gain - (2 * parameters[..., 1:3].norm(dim=-1) / _USUAL_ASTIGMATISM).square()
        fit = RingFit(
            parameters,
            gain.float(),
            _on_all_rings((fixed @ now[..., :n_fixed, None].float()).reshape(b, s, *shape), rings, grid),
            _covariance(normal, size - free, units[:free]),
        )
        # The first solution has no robust weights: its chi-square is another.
        best = fit if best is None or iteration <= 1 else _better(best, fit)
        if iteration == iterations:
            break
        fitted = (design[..., : size - free] @ now[..., : size - free, None].float())[..., 0]
        residual = (data - fitted).abs() * base_weights.sqrt()
        robust = (_HUBER_SIGMAS / residual.clamp(min=1e-6)).clamp(max=1)
        if iteration == 0:
            # The first solution gave the amplitude; no step without it.
            amplitude = now[..., splines].float()
            continue
        moved = _non_negative(normal, target, ridge, splines)
        amplitude = moved[..., splines].float()
        step = moved[..., steps].float().clamp(-_LONGEST_STEP, _LONGEST_STEP) * units[:free]
        parameters = parameters.clone()
        parameters[..., :free] += step
        parameters = _within(parameters, wanted)
    if best is None:
        raise ValueError("refinement without an iteration")
    return best


def _covariance(normal: Tensor, linear: int, units: Tensor) -> Tensor:
    """Return the covariance (b, s, n, n) of the last parameters, with the ``linear`` ones before all free."""
    precision = normal[..., linear:, linear:]
    cross = normal[..., :linear, linear:]
    inner = normal[..., :linear, :linear]
    ridge = 1e-7 * normal.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    inner = inner + ridge * torch.eye(linear, dtype=normal.dtype, device=normal.device)
    precision = precision - cross.transpose(-1, -2) @ torch.linalg.solve(inner, cross)
    prior = (2 * units / _USUAL_ASTIGMATISM).square().double()
    prior[[0, *range(3, len(units))]] = 1e-6
    covariance: Tensor = torch.linalg.inv(precision + torch.diag(prior)) * torch.outer(units, units)
    return covariance


def _on_all_rings(values: Tensor, rings: slice, grid: PolarGrid) -> Tensor:
    """Return (b, s, sectors, rings) with zeros where rings were not fitted."""
    return torch.nn.functional.pad(values, (rings.start, grid.count.shape[1] - rings.stop))


def _within(parameters: Tensor, wanted: SearchRange) -> Tensor:
    """Return parameters moved into the ranges; astigmatism never exceeds half the mean defocus."""
    defocus = parameters[..., :1].clamp(*wanted.defocus_angstrom)
    components = parameters[..., 1:3]
    longest = torch.minimum(defocus / 4, torch.full_like(defocus, wanted.astigmatism_angstrom / 2))
    length = components.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    components = components * (longest / length).clamp(max=1)
    shift = parameters[..., 3:]
    if wanted.phase_shift_degrees is not None:
        low, high = wanted.phase_shift_degrees
        shift = shift.clamp(math.radians(low), math.radians(high))
    return torch.cat([defocus, components, shift], dim=-1)


def _bases(grid: PolarGrid, rings: slice) -> tuple[Tensor, Tensor]:
    """Return the baselines' columns (bins, n) and the amplitude's (rings, n)."""
    frequency = grid.frequency[rings]
    logs = frequency.log()
    ends = float(logs[0]), float(logs[-1])
    sectors = grid.count.shape[0]
    baseline = spline_basis(logs, *ends, _BASELINE_SPLINES).repeat(sectors, 1)
    uneven = spline_basis(logs, *ends, _ANISOTROPY_SPLINES).repeat(sectors, 1)
    cosine, sine = (part[:, rings].reshape(-1, 1) for part in sector_cosines(grid))
    # Twice the angle: drift. Four times: square pixels and the blocks of compressed images.
    waves = [cosine, sine, cosine.square() - sine.square(), 2 * cosine * sine]
    columns = torch.cat([baseline, *(uneven * wave for wave in waves)], dim=1)
    amplitude = spline_basis(frequency, float(frequency[0]), float(frequency[-1]), _AMPLITUDE_SPLINES)
    return columns, amplitude


def _stiffness(size: int, device: torch.device) -> Tensor:
    """Return the precision matrix (size, size) of the baseline's bends; nothing is said of other columns."""
    bends = torch.diff(torch.eye(_BASELINE_SPLINES, dtype=torch.float64, device=device), n=2, dim=0)
    rest = size - _BASELINE_SPLINES
    return torch.nn.functional.pad(bends.T @ bends / _BASELINE_BEND**2, (0, rest, 0, rest))


def _solve(normal: Tensor, target: Tensor, ridge: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.solve(normal + torch.diag_embed(ridge), target[..., None])
    return solution[..., 0]


def _non_negative(normal: Tensor, target: Tensor, ridge: Tensor, splines: slice) -> Tensor:
    """Solve, then leave out amplitudes that came out negative, until hardly any is."""
    ridge = ridge.clone()
    excluded = _EXCLUDED * normal.diagonal(dim1=-2, dim2=-1).amax(dim=-1, keepdim=True)
    for _ in range(3):
        solution = _solve(normal, target, ridge)
        ridge[..., splines] = torch.where(solution[..., splines] < -1e-9, excluded, ridge[..., splines])
    return _solve(normal, target, ridge)


def _better(old: RingFit, new: RingFit) -> RingFit:
    # Of equals the later one, which is converged: rounding must not choose.
    won = new.gain > old.gain - _EQUAL_GAIN

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(won.reshape(*won.shape, *[1] * (a.ndim - 2)), b, a)

    return RingFit(
        pick(old.parameters, new.parameters),
        pick(old.gain, new.gain),
        pick(old.baseline, new.baseline),
        pick(old.covariance, new.covariance),
    )
