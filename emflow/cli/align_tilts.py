"""Find the shifts and the tilt axis of a tilt series, without fiducials."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from emflow.cli.progress import say
from emflow.cli.series import (
    geometry_of,
    read_tilts,
    reason_of,
    required,
    with_geometry,
    write_failed_series,
    write_tilts,
)
from emflow.io.locations import find_store
from emflow.io.store import read_in_turn

STAGE = "align_tilts"


def align_tilts(
    *,
    tilts: Path,
    output: Path,
    replace_imported: bool = False,
    refine_axis: bool = True,
    specimen_angstrom: float = 900.0,
    threads: int = 1,
) -> None:
    """Write a tilt series' table with its alignment; one that was imported is kept.

    Parameters
    ----------
    tilts
        The series' corrected.tsv.
    output
        The alignment.tsv to write.
    replace_imported
        Align also where an alignment was imported.
    refine_axis
        Whether to refine the angle of the tilt axis.
    specimen_angstrom
        Thickness of the specimen, roughly: images far apart in tilt have less in common the thicker it is.
    threads
        Of the CPU.
    """
    import torch

    from emflow.tilt_alignment import align

    torch.set_num_threads(threads)
    table, rows = read_tilts(tilts)
    if not rows:
        write_failed_series(STAGE, output, reason_of(table))
        return
    if not replace_imported and all(row.alignment_source for row in rows):
        say(STAGE, f"the imported alignment of {len(rows)} images is kept")
        write_tilts(output, table, {})
        return
    images = np.stack(
        [read_in_turn(find_store(tilts.parent, row.store), int(required(row, "position"))) for row in rows]
    )
    found = align(
        torch.from_numpy(images),
        geometry_of(rows),
        required(rows[0], "stored_pixel_size_angstrom"),
        refine_axis=refine_axis,
        specimen_angstrom=specimen_angstrom,
    )
    done = with_geometry(rows, found.geometry, STAGE)
    done = [
        replace(row, alignment_residual_angstrom=float(value))
        for row, value in zip(done, found.residual_angstrom, strict=True)
    ]
    axis = float(found.geometry.z_rot_degrees.mean())
    weakest = int(found.correlation.argmin())
    say(STAGE, f"{len(done)} images aligned, tilt axis at {axis:.2f} degrees")
    say(
        STAGE,
        f"least like its neighbour is {done[weakest].name}: correlation {found.correlation[weakest]:.2f}",
    )
    write_tilts(output, table, {row.name: row for row in done})
