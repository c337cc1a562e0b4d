"""What the commands of a tilt series share: reading its table, and passing on what was left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from emflow.cli.progress import say
from emflow.errors import BadInputError
from emflow.io.index import FAILED, OK, TiltRow, read_index, write_index
from emflow.tilt_geometry import TiltGeometry


def read_tilts(path: Path) -> tuple[list[TiltRow], list[TiltRow]]:
    """Return all rows of a tilt series' table, and those of usable images."""
    table = read_index(path, TiltRow)
    return table, [row for row in table if row.status == OK]


def series_name(path: Path) -> str:
    """Return a tilt series' name from the place of one of its tables."""
    return path.absolute().parent.name


def write_failed_series(stage: str, output: Path, reason: str) -> None:
    """Write the table of a tilt series that is left out as a whole."""
    name = series_name(output)
    say(stage, f"left out {name}: {reason}")
    write_index(output, [TiltRow(name, FAILED, reason)], TiltRow)


def reason_of(table: list[TiltRow]) -> str:
    """Return why a series without usable images was left out."""
    reasons = [row.reason for row in table if row.status == FAILED]
    return reasons[0] if reasons else "no image of it is usable"


def write_tilts(output: Path, table: list[TiltRow], done: dict[str, TiltRow]) -> None:
    """Write a series' table, rows that were worked on in place of their old ones."""
    write_index(output, [done.get(row.name, row) for row in table], TiltRow)


def required(row: TiltRow, name: str) -> float:
    """Return a number of a row that a stage cannot do without.

    Raises
    ------
    BadInputError
        If it is not there.
    """
    value = getattr(row, name)
    if value is None:
        raise BadInputError(f"{row.name}: {name} is not known")
    return float(value)


def geometry_of(rows: list[TiltRow]) -> TiltGeometry:
    """Return the alignment of a series' images, or the nominal one where there is none."""

    def column(name: str, nominal: str | None) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        values = []
        for row in rows:
            value = getattr(row, name)
            if value is None:
                value = 0.0 if nominal is None else required(row, nominal)
            values.append(value)
        return np.array(values, dtype=np.float64)

    return TiltGeometry(
        column("x_tilt_degrees", None),
        column("y_tilt_degrees", "nominal_tilt_degrees"),
        column("z_rot_degrees", "nominal_axis_degrees"),
        column("x_shift_angstrom", None),
        column("y_shift_angstrom", None),
    )


def with_geometry(rows: list[TiltRow], geometry: TiltGeometry, source: str) -> list[TiltRow]:
    """Return rows with an alignment."""
    return [
        replace(
            row,
            x_tilt_degrees=float(geometry.x_tilt_degrees[n]),
            y_tilt_degrees=float(geometry.y_tilt_degrees[n]),
            z_rot_degrees=float(geometry.z_rot_degrees[n]),
            x_shift_angstrom=float(geometry.x_shift_angstrom[n]),
            y_shift_angstrom=float(geometry.y_shift_angstrom[n]),
            alignment_source=source,
        )
        for n, row in enumerate(rows)
    ]
