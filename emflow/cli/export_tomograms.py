"""Write a session of tomograms as RELION 5 reads it, and judge how many tilt series were lost."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from cyclopts import Parameter

from emflow.cli.progress import say
from emflow.errors import SettingError
from emflow.io.index import (
    FAILED,
    OK,
    ExportedSeriesRow,
    TiltRow,
    VolumePickRow,
    VolumeRow,
    read_index,
    write_failures,
    write_index,
)
from emflow.io.relion5_check import check_relion5
from emflow.io.relion_tomograms import ExportedTomogram, write_relion_tomograms
from emflow.io.star import star_text
from emflow.io.volume_picks import read_all_picks

STAGE = "export_tomograms"


def export_tomograms(
    *,
    picks: Annotated[list[Path], Parameter(consume_multiple=True)],
    output: Path,
    tilts_table: str = "tilt_ctf.tsv",
    matched_table: str = "",
    threshold: Literal["auto"] | float = "auto",
    max_failed_fraction: float = 0.5,
) -> None:
    """Write tomograms.star, tilt_series/, particles.star and optimisation_set.star of a session.

    Parameters
    ----------
    picks
        The picks.tsv of every tilt series; picks.star, tomogram.tsv and the tilts' table lie beside each.
    output
        The export.tsv to write last; the STAR files lie beside it. RELION is to be started in the folder
        that holds results/.
    tilts_table
        Name of the table that holds alignment and CTF; a tomogram that has none beside it came without.
    matched_table
        Name of the table of what a template found, beside each picks.tsv; "" where there is none.
    threshold
        Lowest figure of merit, 0 to 1; auto takes what each picks.tsv suggests.
    max_failed_fraction
        Exit with status 1 when more of the tilt series than this were left out.
    """
    if threshold != "auto" and not 0 <= threshold <= 1:
        raise SettingError(f"--threshold {threshold}: expected auto or a number from 0 to 1")
    folder = output.parent
    folder.mkdir(parents=True, exist_ok=True)
    table, exported = [], []
    for path in sorted(picks, key=lambda each: each.parent.name):
        row, tomogram = _one(path, tilts_table, matched_table, threshold)
        table.append(row)
        if tomogram is not None:
            exported.append(tomogram)
    failed = [row for row in table if row.status == FAILED]
    write_failures(folder, failed)
    _judge(len(failed), len(table), max_failed_fraction, folder)
    write_relion_tomograms(folder, exported, _project_root(folder))
    problems = check_relion5(folder)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        say(STAGE, f"emflow's own files are refused: {len(problems)} problems; please report this")
        sys.exit(1)
    write_index(output, table, ExportedSeriesRow)
    for tomogram in exported:
        _warn_of_no_defocus(tomogram)
    particles = sum(row.particles or 0 for row in table)
    say(STAGE, f"{particles} particles from {len(exported)} of {len(table)} tomograms in {folder}")


def _project_root(folder: Path) -> Path:
    """Return the session's folder: the one that holds results/."""
    for parent in folder.absolute().parents:
        if parent.name == "results":
            return parent.parent
    return folder.absolute()


def _one(
    path: Path, tilts_table: str, matched_table: str, threshold: Literal["auto"] | float
) -> tuple[ExportedSeriesRow, ExportedTomogram | None]:
    """Return what is said of a tilt series, and what RELION is given of it."""
    tables = [path, *([path.with_name(matched_table)] if matched_table else [])]
    pickers = [picker for table in tables for picker in read_index(table, VolumePickRow)]
    found = next((picker for picker in pickers if picker.status != OK), pickers[0])
    if found.status != OK:
        return ExportedSeriesRow(found.name, FAILED, found.reason), None
    (volume,) = read_index(path.with_name("tomogram.tsv"), VolumeRow)
    if volume.status != OK:  # where no class is picked, an empty table of picks says nothing of it
        return ExportedSeriesRow(found.name, FAILED, volume.reason), None
    tilts_path = path.with_name(tilts_table)
    all_tilts = read_index(tilts_path, TiltRow) if tilts_path.is_file() else []
    tilts = [tilt for tilt in all_tilts if tilt.status == OK]
    limit = found.suggested_threshold if threshold == "auto" else threshold
    if limit is None:
        raise SettingError(f"{path}: suggests no threshold; set export.threshold to a number")
    candidates = read_all_picks(tables)
    chosen = candidates[candidates["rlnAutopickFigureOfMerit"].to_numpy(float) >= limit]
    chosen = _inside(chosen.reset_index(drop=True), volume)
    row = ExportedSeriesRow(
        found.name,
        OK,
        "",
        len(chosen),
        float(limit),
        len(tilts) or None,
        len(all_tilts) - len(tilts) if tilts else None,
        _median(tilt.alignment_residual_angstrom for tilt in tilts),
        _median(
            None
            if tilt.defocus_u_angstrom is None or tilt.defocus_v_angstrom is None
            else (tilt.defocus_u_angstrom + tilt.defocus_v_angstrom) / 2
            for tilt in tilts
        ),
        _total(tilt.exposure_electrons_per_square_angstrom for tilt in all_tilts),
        _sha256(chosen),
    )
    return row, ExportedTomogram(volume, tilts, chosen)


def _warn_of_no_defocus(tomogram: ExportedTomogram) -> None:
    unknown = sum(tilt.ctf is None for tilt in tomogram.tilts)
    if unknown:
        told = f"defocus unknown in {unknown} of {len(tomogram.tilts)} tilts and exported as 0, in focus"
        cure = "set tilt_ctf.enabled: true, or import a nominal defocus (TargetDefocus of an .mdoc)"
        say(STAGE, f"warning: {tomogram.volume.name}: {told}; {cure}")


def _inside(table: pd.DataFrame, volume: VolumeRow) -> pd.DataFrame:
    """Return the particles whose centres are in the tomogram: RELION looks for others without a word."""
    half = np.array([volume.width or 0, volume.height or 0, volume.depth or 0]) / 2
    points = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy(float)
    inside = (np.abs(points) <= half * (volume.pixel_size_angstrom or 1.0)).all(axis=1)
    return table[inside].reset_index(drop=True)


def _sha256(table: pd.DataFrame) -> str:
    return hashlib.sha256(star_text({"particles": table}).encode()).hexdigest()


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.sum(known)) if known else None


def _judge(failed: int, total: int, max_failed_fraction: float, folder: Path) -> None:
    reasons = f"the reasons are in {folder / 'failures.tsv'}"
    if failed == total:
        say(STAGE, f"no tilt series is left of {total}: {reasons}")
        sys.exit(1)
    if failed > max_failed_fraction * total:
        limit = f"more than export.max_failed_fraction, {max_failed_fraction:g}"
        say(STAGE, f"{failed} of {total} tilt series were left out, {limit}: {reasons}")
        sys.exit(1)
