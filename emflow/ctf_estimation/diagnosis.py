"""What a fit is worth: the resolution to which rings are fitted, its figure of merit, and its picture."""

import math

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray
from torch import Tensor

from emflow.ctf_estimation.rings import Microscope, ctf_phase, ring_contrast
from emflow.ctf_estimation.spectrum import PolarGrid

ICE_ANGSTROM = (3.6, 4.0)  # crystalline ice reflects between 3.9 and 3.7
_WORST_ANGSTROM = 30.0
_START_ANGSTROM = 10.0
_LEAST_CORRELATION = 0.5
_EVEN_GAIN = 26.0
_FEWEST_FITTED_RINGS = 1.2
_MERIT_AT_AN_END = 0.1
# What noise alone would leave is less than what is left: set on simulated scenes.
_DEFOCUS_ERROR_FACTOR = 1.35
_ANGLE_ERROR_FACTOR = 1.15
_UNKNOWN_ANGLE_DEGREES = 180 / math.sqrt(12)  # the deviation of any angle over half a turn
# Where the shapes of particles fall off: many of one shape have rings of their own inside, as a CTF has.
SHAPES_END_ANGSTROM = 15.0
_EVEN_FINE_GAIN = 8.0
_WINDOW_PERIODS = 1.5
_WINDOW_RINGS = 11
# Smoothing of the picture: along rings, and of their contrast over radius.
_PICTURE_SECTORS = 1.5
_PICTURE_RINGS = 8.0


def equiphase_frequency(microscope: Microscope, grid: PolarGrid, parameters: Tensor) -> Tensor:
    """Return where the rings of the mean defocus have the phase of each bin, (sectors, rings) in 1/angstrom.

    Averaged over bins of equal phase, astigmatic rings keep their contrast (Rohou and Grigorieff 2015).
    """
    zero = torch.zeros((), device=parameters.device)
    defocus, cosine, sine, _ = parameters
    bare = Microscope(microscope.wavelength_angstrom, microscope.spherical_aberration_angstrom, 0.0)
    phase = ctf_phase(
        bare,
        grid.square,
        grid.cosine,
        grid.sine,
        defocus=defocus,
        astigmatism_cosine=cosine,
        astigmatism_sine=sine,
        phase_shift=zero,
    )
    linear = microscope.wavelength_angstrom * defocus
    curved = 2 * microscope.spherical_aberration_angstrom * microscope.wavelength_angstrom**3
    root = (linear.square() - curved * phase / math.pi).clamp(min=0).sqrt()
    squared: Tensor = 2 * phase / math.pi / (linear + root)
    return squared.clamp(min=0).sqrt()


def ring_correlation(
    residual: Tensor, weights: Tensor, grid: PolarGrid, microscope: Microscope, parameters: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return profiles over rings of equal phase, and their correlation in a sliding window.

    Parameters
    ----------
    residual, weights
        Log power less its baseline, and its weights, (sectors, rings).
    grid, microscope
        Its bins and the microscope.
    parameters
        (4,) of the fit.

    Returns
    -------
    frequency, measured, modelled, correlation: Tensor
        (rings,) each; NaN where there is nothing.
    """
    place = (equiphase_frequency(microscope, grid, parameters) / grid.frequency_step).round().long()
    rings = grid.count.shape[1]
    place = place.clamp(max=rings - 1).reshape(-1)
    total = residual.new_zeros(rings).index_add_(0, place, weights.reshape(-1))
    measured = residual.new_zeros(rings).index_add_(0, place, (weights * residual).reshape(-1)) / total
    frequency = grid.frequency
    square = frequency.square()
    zero = torch.zeros((), device=parameters.device)
    phase = ctf_phase(
        microscope,
        square,
        zero,
        zero,
        defocus=parameters[0],
        astigmatism_cosine=zero,
        astigmatism_sine=zero,
        phase_shift=parameters[3],
    )
    modelled = -torch.cos(2 * phase) * ring_contrast(
        microscope, square, parameters[0], 1 / grid.frequency_step
    )
    wavelength = microscope.wavelength_angstrom
    period = (
        1 / (2 * wavelength * frequency * parameters[0].clamp(min=1)).clamp(min=1e-6) / grid.frequency_step
    )
    half = ((_WINDOW_PERIODS * period).clamp(min=_WINDOW_RINGS, max=rings) / 2).ceil().long()
    correlation = torch.full_like(measured, math.nan)
    known = torch.isfinite(measured)
    for ring in known.nonzero()[:, 0].tolist():
        part = slice(max(0, ring - int(half[ring])), ring + int(half[ring]) + 1)
        use = known[part]
        if int(use.sum()) >= 5:
            pair = torch.stack([measured[part][use], modelled[part][use]])
            correlation[ring] = torch.corrcoef(pair)[0, 1]
    return frequency, measured, modelled, correlation


def fit_resolution_angstrom(frequency: Tensor, correlation: Tensor) -> float:
    """Return the resolution at which the correlation first falls below one half.

    Outwards from its best between 30 and 10 angstrom, so that chance agreement further out does not count;
    30 angstrom when it is nowhere above in there.
    """
    known = torch.isfinite(correlation) & (frequency >= 1 / _WORST_ANGSTROM)
    values, places = correlation[known], frequency[known]
    inner = places <= 1 / _START_ANGSTROM
    if not bool(inner.any()):
        return _WORST_ANGSTROM
    best = int(torch.where(inner, values, torch.full_like(values, -1)).argmax())
    if float(values[best]) < _LEAST_CORRELATION:
        return _WORST_ANGSTROM
    below = (values[best:] < _LEAST_CORRELATION).nonzero()
    last = best + int(below[0]) - 1 if len(below) else len(values) - 1
    return min(_WORST_ANGSTROM, 1 / float(places[last]))


def figure_of_merit(
    chi_square_gain: float,
    fine_gain: float,
    resolution_angstrom: float,
    mean_defocus_angstrom: float,
    microscope: Microscope,
    defocus_range_angstrom: tuple[float, float],
) -> float:
    """Return the probability that the mean defocus is right, within 5 % or 300 angstrom, in 0..1.

    A logistic function of what rings explain, set on 500 simulated micrographs, a third of them without
    any ring: of these none explains more than 22, and of fits that explain more than 40 none in fifty is
    wrong. A fit of hardly more than one ring between 30 angstrom and its resolution is distrusted
    whatever it explains: a background can look like that. So is a fit that explains little beyond 15 angstrom
    (``fine_gain``): inside, the form factor of many particles of one shape has rings that fit a CTF of a far
    larger defocus. So is a defocus at an end of the range that was searched, as there it is the range that
    stopped it.
    """
    squares = 1 / resolution_angstrom**2 - 1 / _WORST_ANGSTROM**2
    rings = max(0.0, microscope.wavelength_angstrom * mean_defocus_angstrom * squares)
    explained = (_EVEN_GAIN / max(chi_square_gain, 1.0)) ** 5
    explained_beyond_shapes = (_EVEN_FINE_GAIN / max(fine_gain, 1.0)) ** 4
    enough_rings = 1 + math.exp(-5 * (rings - _FEWEST_FITTED_RINGS))
    merit = 1 / ((1 + explained) * (1 + explained_beyond_shapes) * enough_rings)
    stopped = min(abs(mean_defocus_angstrom - end) for end in defocus_range_angstrom) < 1
    return min(merit, _MERIT_AT_AN_END) if stopped else merit


def stated_errors(parameters: Tensor, covariance: Tensor) -> tuple[float, float]:
    """Return the standard errors of the mean defocus in angstrom and of the angle in degrees.

    They follow from how sharply the fit's chi-square falls off, with a factor for what noise does not
    explain, and hold for a fit that is right: that is for the figure of merit to say. An angle's is the
    astigmatism's error across it over the astigmatism, at most that of an angle that is not known at all.

    Parameters
    ----------
    parameters
        (4,) of the fit.
    covariance
        Of its first three or four, in the same order and units.
    """
    cosine, sine = parameters[1:3].double()
    direction = torch.atan2(sine, cosine)
    across = torch.stack([-direction.sin(), direction.cos()])
    deviation = (across @ covariance[1:3, 1:3] @ across).sqrt()
    half = torch.hypot(cosine, sine).clamp(min=1e-3)
    turn = _ANGLE_ERROR_FACTOR * math.degrees(float(deviation / half) / 2)
    defocus = _DEFOCUS_ERROR_FACTOR * math.sqrt(float(covariance[0, 0]))
    return defocus, min(turn, _UNKNOWN_ANGLE_DEGREES)


def diagnostic_image(
    residual: Tensor, weights: Tensor, grid: PolarGrid, microscope: Microscope, parameters: Tensor
) -> NDArray[np.float32]:
    """Return a picture of the fit: left half the measured rings, right half the fitted ones.

    Zero frequency is at pixel (r, r), the step is the grid's, and y grows downwards as in the micrograph. The
    measured rings are averaged over a few degrees along the ring, and scaled to equal contrast at all radii.

    Parameters
    ----------
    residual, weights
        Log power less its baseline, and its weights, (sectors, rings); weight 0 is shown grey.
    grid, microscope, parameters
        Bins, microscope and fit (4,).

    Returns
    -------
    float32 (2 r + 1, 2 r + 1), in 0 .. 1.
    """
    sectors, rings = residual.shape
    radius = rings - 1
    # Half a turn on, the spectrum repeats: the sectors wrap round.
    weight = scipy.ndimage.gaussian_filter1d(
        weights.cpu().double().numpy(), _PICTURE_SECTORS, axis=0, mode="wrap"
    )
    weighted = (weights * residual).cpu().double().numpy()
    smooth = scipy.ndimage.gaussian_filter1d(weighted, _PICTURE_SECTORS, axis=0, mode="wrap")
    known = weight > 0
    smooth = np.where(known, smooth / np.where(known, weight, 1), 0)
    share = known.mean(axis=0)
    mean_square = scipy.ndimage.gaussian_filter1d((smooth**2).mean(axis=0), _PICTURE_RINGS)
    mean_square /= np.maximum(scipy.ndimage.gaussian_filter1d(share, _PICTURE_RINGS), 1e-6)
    shown = np.where(known, np.clip(0.5 + 0.25 * smooth / np.sqrt(mean_square + 1e-9), 0, 1), 0.5)

    y = np.arange(-radius, radius + 1)[:, None]
    x = np.arange(radius + 1)[None, :]
    ring = np.minimum(np.rint(np.hypot(y, x)).astype(int), radius)
    sector = ((np.arctan2(y, x) / np.pi + 0.5) * sectors).astype(int) % sectors
    measured = np.where(np.hypot(y, x) <= radius, shown[sector, ring], 0.5)
    step = grid.frequency_step
    k_y, k_x = (torch.as_tensor(axis * step, dtype=torch.float32) for axis in (y, x))
    square = k_x * k_x + k_y * k_y
    p = parameters.cpu()
    phase = ctf_phase(
        microscope,
        square,
        k_x * k_x - k_y * k_y,
        2 * k_x * k_y,
        defocus=p[0],
        astigmatism_cosine=p[1],
        astigmatism_sine=p[2],
        phase_shift=p[3],
    )
    fitted = 0.5 - 0.5 * torch.cos(2 * phase) * ring_contrast(microscope, square, p[0], 1 / step)
    picture = np.empty((2 * radius + 1, 2 * radius + 1), dtype=np.float32)
    picture[:, radius:] = fitted.numpy()
    picture[:, :radius] = measured[::-1, :0:-1]
    return picture
