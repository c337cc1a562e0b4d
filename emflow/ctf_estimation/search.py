"""Exhaustive search of defocus, astigmatism and phase shift by a table of correlations per sector."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from emflow.ctf_estimation.rings import Microscope, ctf_phase, ring_contrast, spline_basis
from emflow.ctf_estimation.spectrum import PolarGrid

_DEFOCUS_STEP = 100.0  # at 300 kV and 5 angstrom a quarter of a radian of the CTF's phase
_ASTIGMATISM_STEP = 200.0
_PHASE_STEP_DEGREES = 10.0
# Fall-off of the rings that is tried, as B factors of their power in square angstrom.
_ENVELOPES = (30.0, 150.0, 500.0)
_BASELINE_SPLINES = 5
_SPOT_SIGMAS = 4.0
# Astigmatism is rarely larger than this; a weak prior that decides where the data do not.
_USUAL_ASTIGMATISM = 1000.0


@dataclass(frozen=True)
class SearchRange:
    """Where to look: (low, high) of the mean defocus, the largest U - V, and (low, high) of phase shift."""

    defocus_angstrom: tuple[float, float]
    astigmatism_angstrom: float
    phase_shift_degrees: tuple[float, float] | None


def without_spots(log_power: Tensor, grid: PolarGrid) -> Tensor:
    """Clamp bins that stand out of their ring: crystal spots, lines, blocks of compression.

    ``log_power`` (b, sectors, rings). Rings that astigmatism crosses keep their full range: a sine's peak
    is 1.4 of its median deviation.
    """
    filled = torch.where(grid.count > 0, log_power, torch.full_like(log_power, math.nan))
    centre = filled.nanmedian(dim=1, keepdim=True).values.nan_to_num()
    deviation = (filled - centre).abs().nanmedian(dim=1, keepdim=True).values.nan_to_num()
    reach = _SPOT_SIGMAS * 1.4826 * deviation
    return torch.where(grid.count > 0, log_power.clamp(centre - reach, centre + reach), log_power)


def ring_weights(log_power: Tensor, grid: PolarGrid, band: Tensor, ring_floor: float) -> Tensor:
    """Return inverse variances of the log power in bins, (b, sectors, rings), 0 outside ``band`` (rings,).

    The noise is judged by differences between neighbouring sectors, where rings and background cancel.
    ``ring_floor`` is the error of any smooth background, which all bins of a ring share.
    """
    count = grid.count * band
    pairs = torch.minimum(count[1:], count[:-1])
    differences = (log_power[:, 1:] - log_power[:, :-1]).square() * pairs / 2
    enough = (pairs >= 2).expand_as(differences)
    variance = torch.stack(
        [
            row[use].median() if bool(use.any()) else row.new_tensor(1.0)
            for row, use in zip(differences, enough, strict=True)
        ]
    )
    # 0.455: median of chi-square with one degree; 2: neighbouring rings share noise through the window.
    variance = (variance / 0.455 * 2).clamp(min=1e-6)[:, None, None]
    return count / variance / (1 + ring_floor**2 * count.sum(dim=0) / variance)


def search(
    log_power: Tensor,
    weights: Tensor,
    grid: PolarGrid,
    microscope: Microscope,
    wanted: SearchRange,
    *,
    starts: int,
) -> Tensor:
    """Return the best separate starts for refinement.

    Every sector is correlated with rings of every defocus, at once a table (sectors, defocus). Astigmatism is
    a shift of each sector along that table, so all of it is searched by adding up table entries; a phase
    shift turns cosine into sine. The score is the chi-square that rings explain beyond a smooth baseline.

    Parameters
    ----------
    log_power, weights
        (b, sectors, rings), see `ring_weights`.
    grid
        Their bins.
    microscope
        Its constants.
    wanted
        What to search.
    starts
        How many to return.

    Returns
    -------
    Tensor (b, starts, 4): mean defocus, the two components of (U - V) / 2, phase shift in radians.
    """
    device = log_power.device
    used = (weights.sum(dim=(0, 1)) > 0).nonzero()[:, 0]
    frequency = grid.frequency[used]
    square = frequency.square()
    reach = min(wanted.astigmatism_angstrom / 2, 0.5 * wanted.defocus_angstrom[1])
    margin = math.ceil(reach / _DEFOCUS_STEP)
    low, high = wanted.defocus_angstrom
    core = torch.arange(low, high + _DEFOCUS_STEP, _DEFOCUS_STEP, device=device)
    table = low + _DEFOCUS_STEP * torch.arange(-margin, len(core) + margin, device=device)
    angle = (torch.arange(grid.count.shape[0], device=device) + 0.5) / grid.count.shape[
        0
    ] * math.pi - math.pi / 2
    # One weight per ring for all sectors, so that one baseline's projection serves them all.
    root = weights[..., used].mean(dim=1).sqrt()
    seen = (weights[..., used] > 0).float()
    zero = torch.zeros(1, device=device)
    phase = 2 * ctf_phase(
        microscope,
        square,
        zero,
        zero,
        defocus=table[:, None],
        astigmatism_cosine=zero,
        astigmatism_sine=zero,
        phase_shift=zero,
    )
    contrast = ring_contrast(microscope, square, table[:, None], 1 / grid.frequency_step)
    envelope = torch.exp(-0.5 * torch.tensor(_ENVELOPES, device=device)[:, None, None] * square)
    models = torch.stack([-torch.cos(phase) * contrast, torch.sin(phase) * contrast])[:, None] * envelope
    log_frequency = frequency.log()
    basis = spline_basis(log_frequency, float(log_frequency[0]), float(log_frequency[-1]), _BASELINE_SPLINES)
    combos = _astigmatisms(reach, device)
    shifts = torch.round(
        (combos[:, :1] * torch.cos(2 * angle) + combos[:, 1:] * torch.sin(2 * angle)) / _DEFOCUS_STEP
    ).long()
    prior = (2 * combos.norm(dim=1) / _USUAL_ASTIGMATISM).square()
    found = []
    for each, root_each, seen_each in zip(log_power[..., used], root, seen, strict=True):
        ortho, _ = torch.linalg.qr(basis * root_each[:, None])
        data = each * root_each * seen_each
        # A sector's empty bins (few, near the centre and the axes) are given its baseline by leaving them 0.
        data = data - (data @ ortho) @ ortho.T
        shaped = models * root_each
        shaped = shaped - (shaped @ ortho) @ ortho.T
        cross = torch.einsum("sr,tedr->tesd", data, shaped)
        norms = torch.stack(
            [(shaped[0] ** 2).sum(-1), (shaped[0] * shaped[1]).sum(-1), (shaped[1] ** 2).sum(-1)]
        )
        scores = []
        phases = _phases(wanted.phase_shift_degrees)
        for shift in phases:
            c, s = math.cos(2 * shift), math.sin(2 * shift)
            numerator = c * cross[0] + s * cross[1]
            norm = c * c * norms[0] + 2 * c * s * norms[1] + s * s * norms[2]
            scores.append(_combine(numerator, norm, shifts, prior, len(core), margin))
        # (phases, combos, core)
        score = torch.stack(scores)
        found.append(_peaks(score, core, combos, phases, starts))
    return torch.stack(found)


def _phases(wanted: tuple[float, float] | None) -> list[float]:
    if wanted is None:
        return [0.0]
    low, high = wanted
    count = max(1, round((high - low) / _PHASE_STEP_DEGREES))
    return [math.radians(low + (high - low) * step / count) for step in range(count + 1)]


def _astigmatisms(reach: float, device: torch.device) -> Tensor:
    count = math.floor(reach / _ASTIGMATISM_STEP)
    line = _ASTIGMATISM_STEP * torch.arange(-count, count + 1, device=device)
    grid = torch.cartesian_prod(line, line).reshape(-1, 2)
    return grid[grid.norm(dim=1) <= max(reach, 1.0)]


def _combine(
    numerator: Tensor, norm: Tensor, shifts: Tensor, prior: Tensor, core: int, margin: int
) -> Tensor:
    """Return the chi-square explained, less the prior: (combos, core), the best over envelopes."""
    result = torch.full((len(shifts), core), -math.inf, device=numerator.device)
    # Windows of the table, one per shift: (envelopes, sectors, 2 margin + 1, core)
    windows = numerator.unfold(2, core, 1)
    lengths = norm.unfold(1, core, 1)
    for first in range(0, len(shifts), 64):
        place = shifts[first : first + 64] + margin
        for env_windows, env_lengths in zip(windows, lengths, strict=True):
            top = torch.zeros((len(place), core), device=numerator.device)
            bottom = torch.zeros_like(top)
            for one in range(numerator.shape[1]):
                top += env_windows[one, place[:, one]]
                bottom += env_lengths[place[:, one]]
            value = top.clamp(min=0).square() / bottom.clamp(min=1e-12)
            result[first : first + 64] = torch.maximum(result[first : first + 64], value)
    return result - prior[:, None]


def _peaks(score: Tensor, core: Tensor, combos: Tensor, phases: list[float], starts: int) -> Tensor:
    """Return the best separate peaks of a score (phases, combos, core), (starts, 4)."""
    device = score.device
    by_defocus, where = (one.cpu() for one in score.flatten(0, 1).max(dim=0))
    core, combos = core.cpu(), combos.cpu()  # one number after another is looked at: no work for a GPU
    chosen: list[Tensor] = []
    left = by_defocus.clone()
    for _ in range(starts):
        best = int(left.argmax())
        which = int(where[best])
        combo = combos[which % len(combos)]
        shift = phases[which // len(combos)]
        chosen.append(torch.stack([core[best], combo[0], combo[1], combo.new_tensor(shift)]))
        apart = (core - core[best]).abs() > max(400.0, 0.06 * float(core[best]))
        left = torch.where(apart, left, torch.full_like(left, -math.inf))
        if not bool(torch.isfinite(left).any()):
            left = by_defocus.clone()
    return torch.stack(chosen).to(device)
