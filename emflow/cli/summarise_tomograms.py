"""Say what was found and lost in a session of tomograms, and draw slices with their classes and picks."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.cli.tomograms import StoredTomogram, read_volume_row
from emflow.io.files import replacing, write_text
from emflow.io.index import FAILED, OK, ExportedSeriesRow, TiltRow, VolumeRow, read_index, read_notes
from emflow.io.relion_tomograms import OPTIMISATION_SET, TOMOGRAMS
from emflow.io.volume_picks import read_all_picks
from emflow.io.volumes import open_labels
from emflow.relion import extraction_box_pixels
from emflow.tomogram_pictures import SlicePicks, draw_slice
from emflow.tomogram_summary import SeriesSummary, TomogramSummary, summary_text

STAGE = "summarise_tomograms"
# Slices that a picture is the mean of: one alone is noise.
_MEAN_SLICES = 5
# Of a circle about a pick, and half of what the boxes that are proposed to RELION have room for.
_RADIUS_ANGSTROM = 140.0
_BY_TEMPLATE = "by_template"


def summarise_tomograms(
    *,
    export: Path,
    session: str,
    pictures: int,
    output: Path,
    matched_table: str = "",
) -> None:
    """Write summary.json, summary.txt and a picture of each tomogram.

    Parameters
    ----------
    export
        The session's relion/export.tsv; the tilt series' folders lie beside relion/.
    session
        The session's name.
    pictures
        Draw up to so many tomograms, else an even sample.
    output
        The summary.json to write; summary.txt and pictures/ lie beside it.
    matched_table
        Name of the table of what a template found, beside each picks.tsv; "" where there is none.
    """
    folder = output.parent
    rows = read_index(export, ExportedSeriesRow)
    used = [row for row in rows if row.status == OK]
    drawn = _drawn(used, pictures)
    target = folder / "pictures"
    target.mkdir(exist_ok=True)
    series, by_class, left_out = [], Counter[str](), dict[str, str]()
    templates: set[str] = set()
    for row in used:
        place = folder / row.name
        picks = _picks(place, row, matched_table)
        own = Counter(picks["emflowClass"].tolist())
        by_class.update(own)
        templates |= set(picks["emflowClass"][picks[_BY_TEMPLATE]])
        left_out |= _tilts_left_out(place)
        series.append(
            SeriesSummary(
                row.name,
                row.particles or 0,
                row.tilts,
                row.tilts_left_out,
                row.alignment_residual_angstrom,
                row.defocus_angstrom,
                row.exposure_electrons_per_square_angstrom,
                _shares(place),
                dict(own),
            )
        )
        if row.name in drawn:
            _draw(place, row, picks, target / f"{row.name}.png")
            say(STAGE, f"{row.name}: picture drawn")
    for stale in {path for path in target.glob("*.png") if path.stem not in drawn}:
        stale.unlink()
    relion = export.parent
    aligned = (relion / TOMOGRAMS).is_file()
    files = {
        "particles": str(relion / "particles.star"),
        **({"RELION 5": str(relion / OPTIMISATION_SET)} if aligned else {}),
        "pictures": f"{target}/ ({len(drawn)} of {len(used)} tomograms)",
        "table": str(export),
    }
    failures = {row.name: row.reason for row in rows if row.status == FAILED}
    notes = {row.name: found for row in rows if (found := read_notes(folder / row.name))}
    summary = TomogramSummary(
        session, series, failures, dict(by_class), sorted(templates), left_out, notes, files
    )
    first = read_volume_row(folder / used[0].name / "tomogram.tsv") if aligned and used else None
    commands = _commands(relion, first) if any(one.particles for one in series) else []
    write_text(folder / "summary.txt", summary_text(summary, commands))
    write_text(output, json.dumps(summary.to_dict(), indent=2) + "\n")
    particles = sum(one.particles for one in series)
    say(STAGE, f"{session}: {particles} particles from {len(series)} tomograms")


def _commands(relion: Path, aligned: VolumeRow | None) -> list[str]:
    """Return how to go on, started in the session's folder; at the voxels of a tomogram that was aligned."""
    if aligned is not None:
        unbinned = aligned.unbinned_pixel_size_angstrom or 1.0
        binning = max(1, round((aligned.pixel_size_angstrom or unbinned) / unbinned))
        crop = extraction_box_pixels(2 * _RADIUS_ANGSTROM, binning * unbinned)
        return [
            f"relion_tomo_subtomo --i {relion / OPTIMISATION_SET} --o Extract/ --b {2 * crop} --crop {crop} "
            f"--bin {binning} --stack2d   # boxes for particles of up to {2 * _RADIUS_ANGSTROM:.0f} A"
        ]
    return [
        f"relion_tomo_import_coordinates --i {relion / 'coordinates.star'} --o ImportCoords/ --centered "
        "   # after importing the tomograms"
    ]


def _drawn(rows: list[ExportedSeriesRow], most: int) -> set[str]:
    """Return the names of all tomograms, or of ``most`` of them spread evenly over the session."""
    if len(rows) <= most:
        return {row.name for row in rows}
    return {rows[n].name for n in np.linspace(0, len(rows) - 1, most).round().astype(int)}


def _picks(place: Path, row: ExportedSeriesRow, matched_table: str) -> pd.DataFrame:
    """Return the candidates that were exported, and which of them a template found."""
    parts = [
        read_all_picks([place / name]).assign(**{_BY_TEMPLATE: name == matched_table})
        for name in ("picks.tsv", matched_table)
        if name
    ]
    table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    merit = table["rlnAutopickFigureOfMerit"].to_numpy(float)
    return table[merit >= (row.threshold or 0.0)].reset_index(drop=True)


def _tilts_left_out(place: Path) -> dict[str, str]:
    path = place / "corrected.tsv"
    if not path.is_file():
        return {}
    return {row.name: row.reason for row in read_index(path, TiltRow) if row.status == FAILED}


def _shares(place: Path) -> dict[str, float]:
    """Return the share of a tomogram's voxels that each class has, of some of its labels; none without."""
    row = read_volume_row(place / "segmented.tsv")
    if row.status != OK:
        return {}
    stored = StoredTomogram.open(row, place)
    labels = np.asarray(open_labels(stored.store)[:, ::4, ::4])
    counts = np.bincount(labels.ravel(), minlength=len(stored.channels))
    return {
        name: round(float(count) / labels.size, 5)
        for name, count in zip(stored.channels, counts, strict=False)
    }


def _image(place: Path) -> StoredTomogram:
    """Return the tomogram to look at: the denoised one where there is one."""
    for name in ("denoised.tsv", "tomogram.tsv"):
        if (place / name).is_file():
            row = read_volume_row(place / name)
            if row.status == OK:
                return StoredTomogram.open(row, place)
    raise FileNotFoundError(f"{place}: holds no tomogram")


def _draw(place: Path, row: ExportedSeriesRow, picks: pd.DataFrame, path: Path) -> None:
    stored = _image(place)
    pixel = stored.row.pixel_size_angstrom or 1.0
    depth = stored.shape[0]
    points = _voxels(picks, stored.shape, pixel)
    z = _telling_slice(points, depth, _RADIUS_ANGSTROM / pixel)
    low, high = max(0, z - _MEAN_SLICES // 2), min(depth, z + _MEAN_SLICES // 2 + 1)
    image = stored.read(stored.channels[0], low, high).mean(axis=0)
    labels = _labels(place, z, stored.shape)
    near = picks[np.abs(points[:, 2] - z) <= _RADIUS_ANGSTROM / pixel]
    drawn = draw_slice(
        image,
        labels,
        picks=[
            SlicePicks(str(name), points[rows.index, :2], by_template=bool(rows[_BY_TEMPLATE].any()))
            for name, rows in near.groupby("emflowClass")
        ],
        radius_voxels=_RADIUS_ANGSTROM / pixel,
        pixel_size_angstrom=pixel,
        caption=f"{row.name}   {row.particles} particles; slice {z} of {depth} ({stored.channels[0]})",
    )
    with replacing(path) as partial:
        drawn.save(partial, format="PNG", optimize=False, compress_level=4)


def _labels(place: Path, z: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the labels (y, x) of a slice; background where the tomogram has no segmentation."""
    row = read_volume_row(place / "segmented.tsv")
    if row.status != OK:
        return np.zeros(shape[1:], dtype=np.uint8)
    return np.asarray(open_labels(StoredTomogram.open(row, place).store)[z])


def _voxels(picks: pd.DataFrame, shape: tuple[int, int, int], pixel: float) -> NDArray[np.float64]:
    """Return picks as voxels (n, 3), x y z."""
    points = picks[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy(float)
    return np.asarray(points / pixel + np.array([side // 2 for side in shape[::-1]]))


def _telling_slice(points: NDArray[np.float64], depth: int, reach: float) -> int:
    """Return the slice that has most picks within reach (in voxels), or the tomogram's middle without any."""
    if not len(points):
        return depth // 2
    z = np.sort(points[:, 2])
    seen = np.searchsorted(z, z + reach, side="right") - np.searchsorted(z, z - reach, side="left")
    # Of as many, the one in their middle.
    best = np.flatnonzero(seen == seen.max())
    return int(np.clip(round(float(z[best[len(best) // 2]])), 0, depth - 1))
