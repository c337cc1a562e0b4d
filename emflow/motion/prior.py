"""What is known of motion before a movie is seen, and how strongly to believe it: chosen by evidence.

The course in time of each term of the field is a Gaussian process. Its strengths are those under which the
movie is most probable, so an order that the movie does not support gets strength zero: it drops out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

# Motion is fast at the start: the processes run in a time that slows down with this many frames.
_FAST_FRAMES = 2.0
# Nats by which motion must be likelier than rest to be taken up.
_GAIN_TO_START = 2.0
_SMALLEST = 1e-6  # variance, square pixels


def covariances(frames: int, white: bool) -> NDArray[np.float64]:
    """Return covariances of unit processes, (n, frames, frames): smooth, rough and, if wanted, white.

    Smooth is the integral of Brownian motion, rough is Brownian motion itself, both in slowing time and of
    variance 1 in the last frame.
    """
    time = np.log1p(np.arange(frames) / _FAST_FRAMES)
    time /= max(time[-1], 1e-9)
    early = np.minimum(time[:, None], time[None, :])
    late = np.maximum(time[:, None], time[None, :])
    rough = early
    drift = time[:, None] * time[None, :]
    smooth = 0.5 * drift + 1.5 * early**2 * (3 * late - early) / 6
    parts = [smooth, rough, np.eye(frames)] if white else [smooth, rough]
    return np.stack(parts)


@dataclass(frozen=True)
class Posterior:
    """Courses in time of the terms, and what speaks for them.

    ``courses`` (terms, frames); ``gain`` the log evidence over that of rest and ``penalty`` what it lost to
    the prior's width and to the courses' length, in nats; ``variances`` the strengths (n,); ``uncertainty``
    (terms,) the mean variance left in a frame of a course, up to a constant.
    """

    courses: NDArray[np.float64]
    gain: float
    penalty: float
    variances: NDArray[np.float64]
    uncertainty: NDArray[np.float64]


def rest(pulls: NDArray[np.float64], kernels: NDArray[np.float64], gain: float = 0.0) -> Posterior:
    """Return the posterior of terms that do not move."""
    return Posterior(np.zeros_like(pulls), gain, 0.0, np.zeros(len(kernels)), np.zeros(len(pulls)))


def regress(
    pulls: NDArray[np.float64],
    precision: NDArray[np.float64],
    scales: NDArray[np.float64],
    kernels: NDArray[np.float64],
    *,
    largest_variance: float,
    start: NDArray[np.float64] | None = None,
) -> Posterior:
    """Return the likeliest courses in time of terms that share their strengths.

    Parameters
    ----------
    pulls
        (terms, frames): precision times the position that the movie alone asks for.
    precision
        (frames, frames); its null vector is a constant, which no movie can tell.
    scales
        (terms,), above nought: ``precision`` times this is what the movie says of a term.
    kernels
        (n, frames, frames), `covariances`.
    largest_variance
        No strength is taken to be larger.
    start
        Variances (n,) to start the search from; None where the terms were at rest so far, which they then
        only leave for a clear gain.
    """
    values, vectors = np.linalg.eigh(precision)
    keep = values > 1e-9 * max(values[-1], 1e-300)
    if values[-1] <= 0 or not keep.any():
        return rest(pulls, kernels)
    basis = vectors[:, keep]
    noise = 1 / (scales[:, None] * values[keep])  # (terms, kept)
    data = (pulls @ basis) * noise
    projected = np.einsum("fi,nfg,gj->nij", basis, kernels, basis)
    diagonal = np.arange(noise.shape[1])

    def inner(variances: NDArray[np.float64]) -> NDArray[np.float64]:
        covariance = np.repeat(np.tensordot(variances, projected, 1)[None], len(noise), axis=0)
        covariance[:, diagonal, diagonal] += noise
        return covariance

    def loss(log_variances: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        variances = np.exp(log_variances)
        inverse = np.linalg.inv(covariance := inner(variances))
        determinant = np.linalg.slogdet(covariance)[1].sum()
        solved = np.einsum("tij,tj->ti", inverse, data)
        value = 0.5 * (determinant + (data * solved).sum())
        total = inverse.sum(0) - solved.T @ solved
        slope = 0.5 * np.einsum("ij,nij->n", total, projected) * variances
        return float(value), slope

    lowest, highest = np.log(_SMALLEST), np.log(largest_variance)
    spread = max(float((data**2 - noise).mean() * 0.5), 1e-3)
    first = np.log(np.full(len(kernels), spread)) - 1.0 if start is None else np.log(start.clip(_SMALLEST))
    first = first.clip(lowest + 0.1, highest - 0.1)
    bounds = [(lowest, highest)] * len(kernels)
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
    at_rest = 0.5 * (np.log(noise).sum() + (data**2 / noise).sum())
    gain = float(at_rest - found.fun)
    if gain < (_GAIN_TO_START if start is None else 0.0):
        return rest(pulls, kernels, gain)
    variances = np.exp(found.x)
    prior = np.tensordot(variances, projected, 1)
    inverse = np.linalg.inv(covariance := inner(variances))
    solved = np.einsum("tij,tj->ti", inverse, data)
    courses = solved @ (basis.T @ np.tensordot(variances, kernels, 1))
    left = np.trace(prior - prior @ inverse @ prior, axis1=1, axis2=2).clip(min=0) / len(precision)
    volume = float(np.linalg.slogdet(covariance)[1].sum() - np.log(noise).sum())
    penalty = 0.5 * (volume + float(((solved @ prior) * solved).sum()))
    return Posterior(courses, gain, penalty, variances, left)
