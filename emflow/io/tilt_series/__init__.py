"""Tilt series as other programs describe them: mdoc, stacks with their lists, RELION 5, AreTomo, Warp."""

from emflow.io.tilt_series.exposures import Alignment, Exposure, TiltSeries
from emflow.io.tilt_series.reading import read_tilt_series

__all__ = ["Alignment", "Exposure", "TiltSeries", "read_tilt_series"]
