"""Simulated tilt series on disk, as a microscope leaves them, and their truth."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emflow.io.files import write_text
from emflow.io.mrc_volumes import mrc_volume
from emflow.io.star import write_star
from emflow.simulation.tomograms import Particle, SimulatedTiltSeries

# SerialEM writes the time of each exposure: any will do, as long as they are in order.
_TIME = "01-Jan-26  {hour:02d}:{minute:02d}:{second:02d}"
_SECONDS_PER_TILT = 20


def write_tilt_series(folder: Path, name: str, series: SimulatedTiltSeries) -> None:
    """Write ``NAME.mrc`` (a stack in the order of tilt), ``NAME.mrc.mdoc`` and ``NAME.rawtlt``."""
    images = series.even + series.odd
    count, height, width = images.shape
    with mrc_volume(folder / f"{name}.mrc", (count, height, width), series.pixel_size_angstrom) as stack:
        stack[:] = images
    tilts = series.nominal_tilts_degrees
    write_text(folder / f"{name}.rawtlt", "".join(f"{tilt:8.2f}\n" for tilt in tilts))
    write_text(folder / f"{name}.mrc.mdoc", _mdoc(name, series, (height, width)))


def _mdoc(name: str, series: SimulatedTiltSeries, shape: tuple[int, int]) -> str:
    lines = [
        f"PixelSpacing = {series.pixel_size_angstrom:g}",
        f"Voltage = {series.voltage_kilovolt:g}",
        f"ImageFile = {name}.mrc",
        f"ImageSize = {shape[1]} {shape[0]}",
        "DataMode = 2",
        "",
        f"[T =     Tilt axis angle = {series.nominal_axis_degrees:.1f}, binning = 1  spot = 7  camera = 0]",
        "",
    ]
    for section, tilt in enumerate(series.nominal_tilts_degrees):
        seconds = int(series.order[section]) * _SECONDS_PER_TILT
        time = _TIME.format(
            day=1 + seconds // 86400,
            hour=seconds // 3600 % 24,
            minute=seconds // 60 % 60,
            second=seconds % 60,
        )
        lines += [
            f"[ZValue = {section}]",
            f"TiltAngle = {tilt:.2f}",
            f"PixelSpacing = {series.pixel_size_angstrom:g}",
            f"RotationAngle = {series.nominal_axis_degrees:.2f}",
            f"ExposureDose = {series.exposure_electrons_per_square_angstrom:.4f}",
            f"TargetDefocus = {-series.defocus_angstrom.mean() / 1e4:.3f}",
            f"DateTime = {time}",
            "",
        ]
    return "\n".join(lines) + "\n"


def write_tomogram_truth(
    folder: Path,
    name: str,
    *,
    labels: NDArray[np.uint8],
    particles: list[Particle],
    series: SimulatedTiltSeries,
) -> None:
    """Write ``NAME_labels.mrc``, ``NAME_particles.star`` and ``NAME_tilts.star``, the true alignment."""
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    with mrc_volume(folder / f"{name}_labels.mrc", shape, series.pixel_size_angstrom, "int8") as volume:
        volume[:] = labels.astype(np.int8)
    rows = [
        {
            "rlnTomoName": name,
            "rlnCenteredCoordinateXAngst": one.centre_angstrom[0],
            "rlnCenteredCoordinateYAngst": one.centre_angstrom[1],
            "rlnCenteredCoordinateZAngst": one.centre_angstrom[2],
            "rlnTomoSubtomogramRot": one.rot_degrees,
            "rlnTomoSubtomogramTilt": one.tilt_degrees,
            "rlnTomoSubtomogramPsi": one.psi_degrees,
            "emflowClass": one.label.name.lower(),
            "emflowSpecies": one.species,
        }
        for one in particles
    ]
    if rows:
        write_star(folder / f"{name}_particles.star", {"particles": pd.DataFrame(rows)})
    geometry = series.geometry
    tilts = pd.DataFrame(
        {
            "rlnTomoXTilt": geometry.x_tilt_degrees,
            "rlnTomoYTilt": geometry.y_tilt_degrees,
            "rlnTomoZRot": geometry.z_rot_degrees,
            "rlnTomoXShiftAngst": geometry.x_shift_angstrom,
            "rlnTomoYShiftAngst": geometry.y_shift_angstrom,
            "rlnDefocusU": series.defocus_angstrom,
            "rlnMicrographPreExposure": series.pre_exposure_electrons_per_square_angstrom,
        }
    )
    write_star(folder / f"{name}_tilts.star", {name: tilts})
