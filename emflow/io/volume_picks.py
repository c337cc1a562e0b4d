"""Candidates of a tomogram, ``picks.star`` and ``matched.star``: what was found and the export thresholds."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from emflow.errors import SettingError
from emflow.io.index import FAILED, VolumePickRow, write_index
from emflow.io.star import read_star, star_text, write_star

COLUMNS = (
    "rlnTomoName",
    "rlnCenteredCoordinateXAngst",
    "rlnCenteredCoordinateYAngst",
    "rlnCenteredCoordinateZAngst",
    "rlnTomoSubtomogramRot",
    "rlnTomoSubtomogramTilt",
    "rlnTomoSubtomogramPsi",
    "emflowClass",
    "rlnAutopickFigureOfMerit",
)
SUGGESTED_THRESHOLD = 0.5
"""Figure of merit from which a candidate is exported, unless the user says otherwise.

Of a segmentation it is a probability, a particle more likely than not; a template's score has it at its
threshold (`emflow.template_matching.figures_of_merit`).
"""
_TABLE = "particles"


def volume_picks_table(
    name: str,
    points_angstrom: "np.ndarray[tuple[int, int], np.dtype[np.float64]]",
    angles_degrees: "np.ndarray[tuple[int, int], np.dtype[np.float64]]",
    classes: list[str],
    figures_of_merit: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> pd.DataFrame:
    """Return the table of candidates: points (n, 3) centred (x, y, z), angles (n, 3) rot, tilt, psi."""
    columns = [
        np.full(len(classes), name, dtype=object),
        *points_angstrom.T,
        *angles_degrees.T,
        np.array(classes, dtype=object),
        figures_of_merit,
    ]
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def write_volume_picks(path: Path, table: pd.DataFrame) -> str:
    """Write the candidates; return the SHA-256 of what was written."""
    write_star(path, {_TABLE: table})
    return hashlib.sha256(star_text({_TABLE: table}).encode()).hexdigest()


def read_volume_picks(path: Path) -> pd.DataFrame:
    """Read what `write_volume_picks` wrote.

    Raises
    ------
    SettingError
        If it is no such table.
    """
    table = read_star(path).get(_TABLE)
    if not isinstance(table, pd.DataFrame) or tuple(table.columns) != COLUMNS:
        raise SettingError(
            f"{path}: expected data_{_TABLE} with {', '.join(COLUMNS)}; run pick_tomogram again"
        )
    return table


def write_failed_picks(index: Path, name: str, reason: str) -> None:
    """Write the table of a tomogram that is left out; what an earlier attempt found goes."""
    index.with_suffix(".star").unlink(missing_ok=True)
    write_index(index, [VolumePickRow(name, FAILED, reason)], VolumePickRow)


def read_all_picks(tables: Sequence[Path]) -> pd.DataFrame:
    """Read the candidates of several pickers, as the STAR files beside their tables hold them."""
    parts = [read_volume_picks(table.with_suffix(".star")) for table in tables]
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or parts)[0]
