"""What is known of motion before a movie is seen, and how strongly to believe it: chosen by evidence.

The course in time of each term of the field is a Gaussian process. Its strengths are those under which the
movie is most probable, so an order that the movie does not support gets strength zero: it drops out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
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
    the mean variance left in a frame of a course, up to a constant.
    """

    courses: NDArray[np.float64]
    gain: float
    penalty: float
    variances: NDArray[np.float64]
    uncertainty: float


def rest(pulls: NDArray[np.float64], kernels: NDArray[np.float64], gain: float = 0.0) -> Posterior:
    """Return the posterior of terms that do not move."""
    return Posterior(np.zeros_like(pulls), gain, 0.0, np.zeros(len(kernels)), 0.0)


def regress(
    pulls: NDArray[np.float64],
    precision: NDArray[np.float64],
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
        (frames, frames) of every term; its null vector is a constant, which no movie can tell.
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
    basis, noise = vectors[:, keep], 1 / values[keep]
    data = (pulls @ basis) * noise
    projected = np.einsum("fi,nfg,gj->nij", basis, kernels, basis)

    def loss(log_variances: NDArray[np.float64]) -> float:
        covariance = np.tensordot(np.exp(log_variances), projected, 1) + np.diag(noise)
        factor, lower = cho_factor(covariance, lower=True)
        determinant = 2 * np.log(np.diag(factor)).sum()
        misfit = (data * cho_solve((factor, lower), data.T).T).sum()
        return float(0.5 * (len(data) * determinant + misfit))

    lowest, highest = np.log(_SMALLEST), np.log(largest_variance)
    spread = max(float((data**2).mean() - noise.mean()), 1e-3)
    first = np.log(np.full(len(kernels), spread)) - 1.0 if start is None else np.log(start.clip(_SMALLEST))
    first = first.clip(lowest + 0.1, highest - 0.1)
    bounds = [(lowest, highest)] * len(kernels)
    found = minimize(loss, first, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
    at_rest = 0.5 * (len(data) * np.log(noise).sum() + (data**2 / noise).sum())
    gain = float(at_rest - found.fun)
    if gain < (_GAIN_TO_START if start is None else 0.0):
        return rest(pulls, kernels, gain)
    variances = np.exp(found.x)
    full = np.tensordot(variances, kernels, 1)
    prior = np.tensordot(variances, projected, 1)
    inner = prior + np.diag(noise)
    solved = np.linalg.solve(inner, data.T).T
    courses = solved @ (basis.T @ full)
    left = prior - prior @ np.linalg.solve(inner, prior)
    volume = np.linalg.slogdet(inner)[1] - np.log(noise).sum()
    penalty = 0.5 * float(len(data) * volume + ((solved @ prior) * solved).sum())
    return Posterior(courses, gain, penalty, variances, float(max(np.trace(left), 0.0)) / len(precision))
