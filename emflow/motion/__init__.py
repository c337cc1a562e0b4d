"""Motion of the specimen during a movie: estimated, and undone. Tensors in, tensors out."""

from emflow.motion.estimate import (
    MotionEstimate,
    MotionSettings,
    estimate_motion,
    fourier_crop,
    working_shape,
)
from emflow.motion.field import MotionField

__all__ = [
    "MotionEstimate",
    "MotionField",
    "MotionSettings",
    "estimate_motion",
    "fourier_crop",
    "working_shape",
]
