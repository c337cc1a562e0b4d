"""Whether a gain reference lies on its movie as it should: the camera's pattern tells."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

FLIPS = ("none", "left_right")
# Correlations below this many deviations of chance say nothing.
_CLEAR = 8.0


@dataclass(frozen=True)
class GainFit:
    """How well a gain, turned and flipped further from how it was given, explains a movie's raw sum.

    ``score`` is the correlation in deviations of what chance gives; negative where the gain should divide.
    """

    quarter_turns: int
    flip: str
    score: float


def _detail(image: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.float32]:
    mean = float(image[usable].mean())
    filled = np.where(usable, image, np.float32(mean))
    smooth = uniform_filter(filled, 9, mode="reflect")
    detail = np.where(usable, filled / np.maximum(smooth, 1e-6 * mean) - 1, 0).astype(np.float32)
    # A hot pixel must not outvote the others.
    limit = 5 * float(detail.std())
    return np.asarray(np.clip(detail, -limit, limit))


def gain_orientations(total: NDArray[np.float32], gain: NDArray[np.float32]) -> list[GainFit]:
    """Try the eight orientations of a gain (h, w) on the raw sum of a movie (h, w), best first.

    Raw counts are high where the gain is low, so their fine patterns are compared as total against 1 / gain.
    Turns come first, clockwise, then the flip; orientations of another shape than the sum's are left out.
    """
    inverse = np.divide(1, gain, out=np.zeros_like(gain), where=gain > 0)
    usable_gain = gain > 0
    pattern = _detail(inverse, usable_gain)
    usable = np.isfinite(total) & (total > 0)
    picture = _detail(total, usable)
    fits = []
    for turns in range(4):
        for flip in FLIPS:
            turned = np.rot90(pattern, -turns)
            turned = turned[:, ::-1] if flip == "left_right" else turned
            if turned.shape != picture.shape:
                continue
            norm = float(np.linalg.norm(turned)) * float(np.linalg.norm(picture))
            product = float(np.vdot(turned, picture)) / norm if norm > 0 else 0.0
            fits.append(GainFit(turns, flip, product * picture.size**0.5))
    return sorted(fits, key=lambda fit: -abs(fit.score))


def gain_complaint(fits: list[GainFit]) -> str | None:
    """Say what is wrong with a gain's orientation, given `gain_orientations`; None if nothing shows."""
    stated = next((fit for fit in fits if fit.quarter_turns == 0 and fit.flip == "none"), None)
    best = fits[0] if fits else None
    if best is None or abs(best.score) < _CLEAR:
        return None
    if best is stated:
        if best.score > 0:
            return None
        return "the gain reference should divide the frames, not multiply them: give its reciprocal"
    if stated is not None and abs(stated.score) > 0.5 * abs(best.score):
        return None
    flip = " and then flipped left to right" if best.flip == "left_right" else ""
    turn = f"turned by {best.quarter_turns} quarter turns clockwise" if best.quarter_turns else "as it is"
    return (
        f"the gain reference does not lie on the frames as given; {turn}{flip} it fits"
        f" (score {best.score:.0f} against {stated.score if stated else 0:.0f})"
    )
