"""Motion in a RELION project: corrected_micrographs.star, and what polishing reads of each movie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from emflow.io.files import link
from emflow.io.gains import read_gain
from emflow.io.motion import MotionRecord
from emflow.io.movies import GAIN_SUFFIX, is_eer
from emflow.io.mrc import write_mrc
from emflow.io.star import write_star
from emflow.metadata import OpticsGroup
from emflow.relion import (
    MOTION,
    MOVIES,
    UNWEIGHTED,
    motion_path,
    movie_name,
    power_spectrum_name,
    unweighted_name,
)

CORRECTED = "corrected_micrographs.star"
_CAMERA = "Camera"


@dataclass(frozen=True)
class CorrectedMicrograph:
    """A micrograph that was made of a movie: its rlnMicrographName, the motion, and its path's lengths."""

    name: str
    record: MotionRecord
    optics: OpticsGroup
    total_angstrom: float
    early_angstrom: float
    late_angstrom: float


def write_motion_project(
    folder: Path,
    micrographs: Sequence[CorrectedMicrograph],
    groups: Mapping[OpticsGroup, tuple[int, str]],
) -> None:
    """Write corrected_micrographs.star, a STAR file per movie, and links to movies, gain and defect map.

    What would not change is left alone; files of movies that are not given are removed, with none given
    all of them.
    """
    wanted: set[Path] = set()
    cameras: dict[tuple[str, int, str, str], dict[str, str]] = {}
    for micrograph in micrographs:
        record = micrograph.record
        target = folder / movie_name(record.name)
        link(target, Path(record.path))
        wanted |= {target, folder / motion_path(micrograph.name)}
        camera = (record.gain, record.gain_rotation, record.gain_flip, record.defects)
        if camera not in cameras:
            cameras[camera] = _camera(folder, record, len(cameras) + 1)
        tables = motion_tables(record, movie_name(record.name), cameras[camera])
        write_star(folder / motion_path(micrograph.name), tables, if_changed=True)
        if record.unweighted:
            plain = folder / unweighted_name(micrograph.name)
            link(plain, Path(record.unweighted))
            wanted.add(plain)
        if record.power_spectrum:
            spectrum = folder / power_spectrum_name(micrograph.name)
            link(spectrum, Path(record.power_spectrum))
            wanted.add(spectrum)
    wanted |= {folder / name for files in cameras.values() for name in files.values()}
    for name in (MOVIES, MOTION, UNWEIGHTED, _CAMERA):
        for path in sorted((folder / name).rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in wanted:
                path.unlink()
    if micrographs:
        write_star(folder / CORRECTED, _corrected(micrographs, groups), if_changed=True)
    else:
        (folder / CORRECTED).unlink(missing_ok=True)


def _camera(folder: Path, record: MotionRecord, number: int) -> dict[str, str]:
    """Put gain and defect map where RELION finds them, as the movies need them turned; return the labels."""
    files: dict[str, str] = {}
    if record.gain:
        gain = Path(record.gain)
        if record.gain_rotation % 4 or record.gain_flip != "none":
            # RELION's polishing turns no gain: it is given one that is turned.
            image = read_gain(gain, rotate_quarter_turns=record.gain_rotation, flip=record.gain_flip)
            if is_eer(Path(record.path)) and gain.suffix.lower() == GAIN_SUFFIX:
                # Of EER, RELION takes every gain but *.gain for one to divide by.
                image = np.divide(1, image, out=np.zeros_like(image), where=image > 0)
            files["rlnMicrographGainName"] = f"{_CAMERA}/gain{number}.mrc"
            write_mrc(folder / files["rlnMicrographGainName"], image, record.pixel_size_angstrom)
        else:
            files["rlnMicrographGainName"] = f"{_CAMERA}/gain{number}{gain.suffix}"
            link(folder / files["rlnMicrographGainName"], gain)
    if record.defects:
        files["rlnMicrographDefectFile"] = f"{_CAMERA}/defects{number}{PurePosixPath(record.defects).suffix}"
        link(folder / files["rlnMicrographDefectFile"], Path(record.defects))
    return files


def motion_tables(
    record: MotionRecord, name: str, camera: Mapping[str, str]
) -> dict[str, pd.DataFrame | dict[str, object]]:
    """Return the tables of one movie's STAR file, RELION's rlnMicrographMetadata.

    Parameters
    ----------
    name
        rlnMicrographMovieName.
    camera
        Names of gain and defect map, by their labels.
    """
    general: dict[str, object] = {
        "rlnImageSizeX": record.width,
        "rlnImageSizeY": record.height,
        "rlnImageSizeZ": record.frames,
        "rlnMicrographMovieName": name,
        **camera,
        "rlnMicrographBinning": float(record.binning),
        "rlnMicrographOriginalPixelSize": float(record.pixel_size_angstrom),
        "rlnMicrographDoseRate": float(record.exposure),
        "rlnMicrographPreExposure": float(record.pre_exposure),
        "rlnVoltage": float(record.voltage_kilovolt),
        "rlnMicrographStartFrame": record.first_frame,
    }
    if record.eer_grouping is not None:
        general["rlnEERUpsampling"] = record.eer_upsampling
        general["rlnEERGrouping"] = record.eer_grouping
    from emflow.motion.relion_model import MODEL_VERSION, relion_motion_model  # torch takes seconds

    shifts, coefficients = relion_motion_model(record.field())
    general["rlnMotionModelVersion"] = MODEL_VERSION if coefficients.any() else 0
    tables: dict[str, pd.DataFrame | dict[str, object]] = {"general": general}
    tables["global_shift"] = pd.DataFrame(
        {
            "rlnMicrographFrameNumber": np.arange(record.first_frame, record.first_frame + len(shifts)),
            "rlnMicrographShiftX": shifts[:, 0],
            "rlnMicrographShiftY": shifts[:, 1],
        }
    )
    if coefficients.any():
        tables["local_motion_model"] = pd.DataFrame(
            {
                "rlnMotionModelCoeffsIdx": np.arange(len(coefficients)),
                # The third power of a frame's number is large: six decimals would be too few.
                "rlnMotionModelCoeff": pd.Series([f"{value:.10f}" for value in coefficients], dtype=object),
            }
        )
    if record.bad_pixels_yx:
        bad = np.array(record.bad_pixels_yx, dtype=np.float64)
        tables["hot_pixels"] = pd.DataFrame({"rlnCoordinateX": bad[:, 1], "rlnCoordinateY": bad[:, 0]})
    return tables


def _corrected(
    micrographs: Sequence[CorrectedMicrograph], groups: Mapping[OpticsGroup, tuple[int, str]]
) -> dict[str, pd.DataFrame | dict[str, object]]:
    original = {micrograph.optics: micrograph.record.pixel_size_angstrom for micrograph in micrographs}
    optics = [(group, *groups[group]) for group in groups if group in original]
    table = pd.DataFrame(
        {
            "rlnOpticsGroupName": [name for _, _, name in optics],
            "rlnOpticsGroup": [number for _, number, _ in optics],
            "rlnMicrographOriginalPixelSize": [float(original[group]) for group, _, _ in optics],
            "rlnVoltage": [float(group.voltage_kilovolt) for group, _, _ in optics],
            "rlnSphericalAberration": [
                float(group.spherical_aberration_millimetre) for group, _, _ in optics
            ],
            "rlnAmplitudeContrast": [float(group.amplitude_contrast) for group, _, _ in optics],
            "rlnMicrographPixelSize": [float(group.pixel_size_angstrom) for group, _, _ in optics],
        }
    )
    columns: dict[str, object] = {
        "rlnMicrographName": [m.name for m in micrographs],
        "rlnMicrographMetadata": [motion_path(m.name) for m in micrographs],
        "rlnOpticsGroup": [groups[m.optics][0] for m in micrographs],
        "rlnAccumMotionTotal": [float(m.total_angstrom) for m in micrographs],
        "rlnAccumMotionEarly": [float(m.early_angstrom) for m in micrographs],
        "rlnAccumMotionLate": [float(m.late_angstrom) for m in micrographs],
    }
    if all(m.record.unweighted for m in micrographs):
        columns["rlnMicrographNameNoDW"] = [unweighted_name(m.name) for m in micrographs]
    if all(m.record.power_spectrum for m in micrographs):
        columns["rlnCtfPowerSpectrum"] = [power_spectrum_name(m.name) for m in micrographs]
    return {"optics": table, "micrographs": pd.DataFrame(columns)}
