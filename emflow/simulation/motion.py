"""Motion of a simulated specimen: how it is drawn, and how far what was found is from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MotionTruth:
    """Where the specimen went, in pixels.

    ``global_yx`` float64 (frames, 2) is the drift of the whole; ``local`` gives, for points (n, 2) of the
    first frame as (y, x), the further displacement (frames, n, 2). A point at r in the first frame is
    recorded at ``r + displacement`` in frame f; both parts are zero in the first frame.
    """

    shape: tuple[int, int]
    global_yx: NDArray[np.float64]
    local: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def displacement(self, points_yx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the displacement of points (n, 2) in each frame, (frames, n, 2)."""
        return np.asarray(self.global_yx[:, None] + self.local(points_yx))


def evaluation_grid(shape: tuple[int, int], points: int = 9) -> NDArray[np.float64]:
    """Return (y, x) of a square grid of points over the inner 80 % of an image, (points^2, 2)."""
    axes = [np.linspace(0.1, 0.9, points) * side for side in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def motion_error_pixels(found: NDArray[np.floating], true: NDArray[np.floating]) -> float:
    """Return the rms distance of two displacement fields (frames, points, 2), up to a constant at each point.

    A constant at a point moves the picture there, but blurs nothing.
    """
    error = np.asarray(found, dtype=np.float64) - true
    error -= error.mean(axis=0, keepdims=True)
    return float(np.sqrt((error**2).sum(-1).mean()))


def draw_motion(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int],
    frames: int,
    drift_pixels: float,
    local_pixels: float,
    jitter_pixels: float = 0.1,
) -> MotionTruth:
    """Draw a motion that starts fast, slows down, and trembles.

    ``drift_pixels`` is about the length of the whole drift; ``local_pixels`` the largest displacement beyond
    it anywhere in the image; ``jitter_pixels`` the deviation of each frame's own position, per axis.
    """
    time = np.arange(frames) / max(frames - 1, 1)
    rate = rng.uniform(3.0, 8.0)
    fast = (1 - np.exp(-rate * time)) / (1 - math.exp(-rate))
    part = rng.uniform(0.4, 0.8)
    angles = rng.uniform(0, 2 * math.pi, 2)
    path = part * fast[:, None] * [math.sin(angles[0]), math.cos(angles[0])]
    path = path + (1 - part) * time[:, None] * [math.sin(angles[1]), math.cos(angles[1])]
    path = path * drift_pixels
    if drift_pixels > 0:
        path = path + rng.normal(0, jitter_pixels, path.shape)
    path -= path[:1]

    # Doming, tilting and stretching, each with its own time course, and a bump that no low polynomial fits.
    linear, quadratic = rng.normal(size=(2, 2, 2)), 0.7 * rng.normal(size=(2, 3))
    rates = rng.uniform(2.0, 6.0, 3)
    bump, centre, width = 0.4 * rng.normal(size=2), rng.uniform(-0.6, 0.6, 2), rng.uniform(0.4, 0.7)

    def field(points_yx: NDArray[np.float64]) -> NDArray[np.float64]:
        v, u = (2 * points_yx / np.asarray(shape) - 1).T
        courses = [(1 - np.exp(-r * time)) / (1 - math.exp(-r)) for r in rates]
        shapes = (
            np.stack([v, u], -1) @ linear[0].T,
            np.stack([v * v, u * u, u * v], -1) @ quadratic.T,
            np.exp(-((v - centre[0]) ** 2 + (u - centre[1]) ** 2) / (2 * width**2))[:, None] * bump,
        )
        return np.asarray(sum(c[:, None, None] * s for c, s in zip(courses, shapes, strict=True)))

    grid = evaluation_grid(shape)
    raw = field(grid)
    # The mean over the image is drift, not local motion.
    mean = raw.mean(axis=1)
    scale = local_pixels / max(float(np.linalg.norm(raw - mean[:, None], axis=-1).max()), 1e-9)
    return MotionTruth(shape, path, lambda points: scale * (field(points) - mean[:, None]))
