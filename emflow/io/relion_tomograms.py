"""A session of tomograms as RELION 5 reads it: tomograms, tilt series, particles, and what binds them.

Coordinates are in angstrom from the tomogram's centre, which is at ``side // 2`` of its unbinned, even sides
(RELION 5.0, ``src/jaz/tomography/particle_set.cpp``); a particle's angles take its own coordinates to the
tomogram's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emflow.io.files import link
from emflow.io.index import TiltRow, VolumeRow
from emflow.io.star import write_star
from emflow.relion import reads_as_stack, stack_suffix

TOMOGRAMS = "tomograms.star"
PARTICLES = "particles.star"
OPTIMISATION_SET = "optimisation_set.star"
IMPORT = "coordinates.star"
STACKS = "stacks"
COMMENT = "Centred coordinates: angstrom from voxel side // 2 of the unbinned tomogram, whose sides are even"
_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
_COORDINATES = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")


@dataclass(frozen=True)
class ExportedTomogram:
    """What RELION is given of one tomogram; ``tilts`` is empty where it came without its tilt series.

    ``particles`` has the columns of `emflow.io.volume_picks.COLUMNS`.
    """

    volume: VolumeRow
    tilts: Sequence[TiltRow]
    particles: pd.DataFrame


def write_relion_tomograms(folder: Path, tomograms: Sequence[ExportedTomogram], root: Path) -> None:
    """Write the STAR files of a session.

    Parameters
    ----------
    folder
        Where they go: tomograms.star, tilt_series/, particles.star, optimisation_set.star, and in stacks/
        links to stacks by names that RELION reads as such; of tomograms without tilt series, particles.star
        and coordinates.star with a file for each that has particles.
    root
        The folder that RELION is started in: names of files are below it.
    """
    aligned = [tomogram for tomogram in tomograms if tomogram.tilts]
    folder.mkdir(parents=True, exist_ok=True)
    if aligned:
        linked: set[str] = set()
        for tomogram in aligned:
            name = tomogram.volume.name
            path = folder / "tilt_series" / f"{name}.star"
            path.parent.mkdir(exist_ok=True)
            stacks = _linked_stacks(tomogram, folder / STACKS)
            linked.update(one.name for one in stacks.values())
            write_star(path, {name: tilt_table(tomogram.tilts, stacks, root)}, if_changed=True)
        table = tomogram_table(aligned, folder, root)
        write_star(folder / TOMOGRAMS, {"global": table}, comments=[COMMENT], if_changed=True)
        write_star(
            folder / OPTIMISATION_SET,
            {
                "optimisation_set": {
                    "rlnTomoParticlesFile": _name(folder / PARTICLES, root),
                    "rlnTomoTomogramsFile": _name(folder / TOMOGRAMS, root),
                }
            },
            if_changed=True,
        )
        tables = (folder / "tilt_series").glob("*.star")
        _remove_unlisted(tables, {f"{tomogram.volume.name}.star" for tomogram in aligned})
        _remove_unlisted((path for path in (folder / STACKS).glob("*") if path.is_symlink()), linked)
    else:
        _write_import(folder, tomograms, root)
    write_star(folder / PARTICLES, particle_tables(tomograms), comments=[COMMENT], if_changed=True)


def _linked_stacks(tomogram: ExportedTomogram, folder: Path) -> dict[str, Path]:
    """Link the stacks of a tilt series that RELION would not read as such; return the links by path."""
    numbered = [tilt.image_path.rpartition("@")[2] for tilt in tomogram.tilts if "@" in tilt.image_path]
    stacks = [path for path in dict.fromkeys(numbered) if not reads_as_stack(path)]
    links = {}
    for n, path in enumerate(stacks, 1):
        name = tomogram.volume.name if n == 1 else f"{tomogram.volume.name}_{n}"
        links[path] = folder / f"{name}{stack_suffix(path)}"
        folder.mkdir(exist_ok=True)
        link(links[path], Path(path))
    return links


def _remove_unlisted(paths: Iterable[Path], listed: set[str]) -> None:
    """Remove tables of tilt series or coordinates, or links, that an earlier export had, this one not."""
    for path in paths:
        if path.name not in listed:
            path.unlink()


def _name(path: Path | str, root: Path) -> str:
    """Return how RELION, started in ``root``, finds a file: what lies outside keeps its whole path."""
    path = Path(path).absolute()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def image_name(tilt: TiltRow, stacks: Mapping[str, Path], root: Path) -> str:
    """Return rlnMicrographName of a tilt: a file, or a slice of a stack, by its link where it has one."""
    number, mark, path = tilt.image_path.rpartition("@")
    return f"{number}{mark}{_name(stacks.get(path, path), root)}"


def tilt_table(tilts: Sequence[TiltRow], stacks: Mapping[str, Path], root: Path) -> pd.DataFrame:
    """Return the table of one tilt series, in the order of its tilts."""

    def numbers(field: str, default: float = 0.0) -> list[float]:
        values = [getattr(tilt, field) for tilt in tilts]
        return [default if value is None else float(value) for value in values]

    ctfs = [tilt.ctf for tilt in tilts]
    y_tilt = numbers("y_tilt_degrees")
    columns: dict[str, object] = {
        "rlnMicrographName": [image_name(tilt, stacks, root) for tilt in tilts],
        "rlnTomoNominalStageTiltAngle": numbers("nominal_tilt_degrees"),
        "rlnTomoNominalTiltAxisAngle": numbers("nominal_axis_degrees"),
        "rlnMicrographPreExposure": numbers("pre_exposure_electrons_per_square_angstrom"),
        "rlnTomoXTilt": numbers("x_tilt_degrees"),
        "rlnTomoYTilt": y_tilt,
        "rlnTomoZRot": numbers("z_rot_degrees"),
        "rlnTomoXShiftAngst": numbers("x_shift_angstrom"),
        "rlnTomoYShiftAngst": numbers("y_shift_angstrom"),
        "rlnDefocusU": [ctf.defocus_u_angstrom if ctf else 0.0 for ctf in ctfs],
        "rlnDefocusV": [ctf.defocus_v_angstrom if ctf else 0.0 for ctf in ctfs],
        "rlnDefocusAngle": numbers("defocus_angle_degrees"),
        "rlnPhaseShift": numbers("phase_shift_degrees"),
        "rlnCtfFigureOfMerit": numbers("ctf_figure_of_merit"),
        "rlnCtfScalefactor": np.cos(np.radians(y_tilt)).tolist(),
    }
    return pd.DataFrame(columns)


def tomogram_table(tomograms: Sequence[ExportedTomogram], folder: Path, root: Path) -> pd.DataFrame:
    """Return the table of all tomograms that have tilt series."""
    rows = []
    for tomogram in tomograms:
        volume, tilt = tomogram.volume, tomogram.tilts[0]
        unbinned = volume.unbinned_pixel_size_angstrom or 1.0
        row: dict[str, object] = {
            "rlnTomoName": volume.name,
            "rlnTomoTiltSeriesStarFile": _name(folder / "tilt_series" / f"{volume.name}.star", root),
            "rlnVoltage": float(tilt.voltage_kilovolt or 0),
            "rlnSphericalAberration": float(tilt.spherical_aberration_millimetre or 0),
            "rlnAmplitudeContrast": float(tilt.amplitude_contrast or 0),
            "rlnMicrographOriginalPixelSize": unbinned,
            "rlnTomoTiltSeriesPixelSize": unbinned,
            "rlnTomoHand": float(tilt.hand or -1),
            "rlnOpticsGroupName": volume.name,
            "rlnTomoTomogramBinning": (volume.pixel_size_angstrom or unbinned) / unbinned,
            "rlnTomoSizeX": volume.unbinned_width,
            "rlnTomoSizeY": volume.unbinned_height,
            "rlnTomoSizeZ": volume.unbinned_depth,
        }
        exposures = [tilt.exposure_electrons_per_square_angstrom for tilt in tomogram.tilts]
        row["rlnTomoImportFractionalDose"] = float(np.median([value or 0.0 for value in exposures]))
        rows.append(row)
    return pd.DataFrame(rows)


def particle_tables(tomograms: Sequence[ExportedTomogram]) -> dict[str, "pd.DataFrame | dict[str, object]"]:
    """Return the tables of particles.star; without tilt series RELION takes none of optics."""
    parts = []
    groups: dict[str, int] = {}
    for tomogram in tomograms:
        # RELION warns of emflowClass, which it does not know, and keeps it.
        kept = ["rlnTomoName", *_COORDINATES, *_ANGLES, "rlnAutopickFigureOfMerit", "emflowClass"]
        part = tomogram.particles[kept].copy()
        part.insert(1, "rlnTomoParticleName", [f"{tomogram.volume.name}/{n + 1}" for n in range(len(part))])
        if tomogram.tilts:
            groups[tomogram.volume.name] = len(groups) + 1
            part["rlnOpticsGroup"] = groups[tomogram.volume.name]
        parts.append(part)
    particles = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if not groups:
        return {"particles": particles}
    optics = [
        {
            "rlnOpticsGroup": groups[tomogram.volume.name],
            "rlnOpticsGroupName": tomogram.volume.name,
            "rlnSphericalAberration": float(tomogram.tilts[0].spherical_aberration_millimetre or 0),
            "rlnVoltage": float(tomogram.tilts[0].voltage_kilovolt or 0),
            "rlnAmplitudeContrast": float(tomogram.tilts[0].amplitude_contrast or 0),
            "rlnTomoTiltSeriesPixelSize": float(tomogram.volume.unbinned_pixel_size_angstrom or 1),
        }
        for tomogram in tomograms
        if tomogram.tilts
    ]
    general: dict[str, object] = {"rlnTomoSubTomosAre2DStacks": 1}
    return {"general": general, "optics": pd.DataFrame(optics), "particles": particles}


def _write_import(folder: Path, tomograms: Sequence[ExportedTomogram], root: Path) -> None:
    """Write what RELION's import of coordinates takes: a file a tomogram, and the list of them.

    Its import stops at a file without particles (RELION 5.0, ``apps/import_coordinates.cpp``), so that none
    is written.
    """
    rows: list[Mapping[str, str]] = []
    for tomogram in tomograms:
        name = tomogram.volume.name
        if tomogram.particles.empty:
            continue
        path = folder / "coordinates" / f"{name}.star"
        path.parent.mkdir(exist_ok=True)
        write_star(path, {"particles": tomogram.particles[["rlnTomoName", *_COORDINATES, *_ANGLES]]})
        rows.append({"rlnTomoName": name, "rlnTomoImportParticleFile": _name(path, root)})
    table = pd.DataFrame(rows, columns=["rlnTomoName", "rlnTomoImportParticleFile"])
    write_star(folder / IMPORT, {"coordinates": table}, if_changed=True)
    listed = {f"{row['rlnTomoName']}.star" for row in rows}
    _remove_unlisted((folder / "coordinates").glob("*.star"), listed)
