"""Motion of the specimen during a movie: estimated, and undone. Tensors in, tensors out."""

from emflow.motion.correction import CorrectedMovie, correct_frames
from emflow.motion.estimate import (
    MotionEstimate,
    MotionSettings,
    estimate_motion,
    fourier_crop,
    working_shape,
)
from emflow.motion.field import MotionField

__all__ = [
    "CorrectedMovie",
    "MotionEstimate",
    "MotionField",
    "MotionSettings",
    "correct_frames",
    "estimate_motion",
    "fourier_crop",
    "working_shape",
]
