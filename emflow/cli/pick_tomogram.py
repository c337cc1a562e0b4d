"""Find the particles of a tomogram in its segmentation."""

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from cyclopts import Parameter
from numpy.typing import NDArray

from emflow import volume_picking
from emflow.cli.progress import say
from emflow.cli.tomograms import StoredTomogram, failed_reason, read_volume_row
from emflow.io.index import OK, VolumePickRow, write_index
from emflow.io.volume_picks import (
    SUGGESTED_THRESHOLD,
    volume_picks_table,
    write_failed_picks,
    write_volume_picks,
)

STAGE = "pick_tomogram"
_MEMBRANE = "membrane"
_MEMBRANE_REACH_ANGSTROM = 250.0


def pick_tomogram(
    *,
    segmented: Path,
    output: Path,
    classes: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    minimum_distance_angstrom: float = 150.0,
    minimum_volume_cubic_angstrom: float = 0.0,
    floor: float = 0.2,
    membrane_normals: bool = False,
    threads: int = 1,
) -> None:
    """Write the candidates of a tomogram, above a low floor, and their table.

    Parameters
    ----------
    segmented
        The segmented.tsv.
    output
        The picks.tsv to write; picks.star lies beside it.
    classes
        Names of the classes to pick; without any the table is empty, also where there is no segmentation.
    minimum_distance_angstrom
        Of two picks of a class.
    minimum_volume_cubic_angstrom
        Of what is more likely of the class than not, within that distance of a pick.
    floor
        Candidates with a lower figure of merit are not kept.
    membrane_normals
        Whether to orient picks near a membrane by its normal.
    threads
        Of the CPU.
    """
    del threads  # peaks are found in one
    row = read_volume_row(segmented)
    if not classes:  # a template alone finds the particles, and needs no segmentation
        nowhere = np.zeros((0, 3))
        _write(output, row.name, volume_picks_table(row.name, nowhere, nowhere, [], np.zeros(0)))
        return
    if (reason := failed_reason(row)) is not None:
        write_failed_picks(output, row.name, reason)
        return
    stored = StoredTomogram.open(row, segmented.parent)
    stored.numbers("pick_tomogram.classes", classes)
    pixel = row.pixel_size_angstrom or 1.0
    points, angles = [np.zeros((0, 3))], [np.zeros((0, 3))]
    names: list[str] = []
    merits = [np.zeros(0)]
    for name in classes:
        found = volume_picking.find_peaks(
            partial(_probability, stored, name),
            stored.shape,
            distance_voxels=minimum_distance_angstrom / pixel,
            floor=floor,
        )
        found = found.where(found.volume_voxels * pixel**3 >= minimum_volume_cubic_angstrom)
        say(STAGE, f"{row.name}: {len(found)} candidates of {name}")
        points.append(volume_picking.centred_angstrom(found.voxels_zyx, stored.shape, pixel))
        angles.append(_angles(stored, found.voxels_zyx, pixel, wanted=membrane_normals))
        names += [name] * len(found)
        merits.append(found.figure_of_merit)
    table = volume_picks_table(
        row.name, np.concatenate(points), np.concatenate(angles), names, np.concatenate(merits)
    )
    _write(output, row.name, table)


def _write(output: Path, name: str, table: pd.DataFrame) -> None:
    checksum = write_volume_picks(output.with_suffix(".star"), table)
    done = VolumePickRow(name, OK, "", len(table), SUGGESTED_THRESHOLD, checksum)
    write_index(output, [done], VolumePickRow)


def _probability(stored: StoredTomogram, name: str, part: volume_picking.Part) -> NDArray[np.float32]:
    return stored.read_part(name, part) / np.float32(255)


def _angles(
    stored: StoredTomogram, voxels_zyx: NDArray[np.float64], pixel: float, *, wanted: bool
) -> NDArray[np.float64]:
    if not wanted or _MEMBRANE not in stored.channels:
        return np.zeros((len(voxels_zyx), 3))
    read = partial(_probability, stored, _MEMBRANE)
    reach = _MEMBRANE_REACH_ANGSTROM / pixel
    normals = volume_picking.membrane_normals(read, stored.shape, voxels_zyx, reach_voxels=reach)
    return volume_picking.angles_along(normals)
