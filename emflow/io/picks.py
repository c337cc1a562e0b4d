"""A user's picks, from STAR files of RELION and others, matched with a session's micrographs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from emflow.errors import SettingError
from emflow.io.index import StoreRow
from emflow.io.star import Table, read_star
from emflow.scoring import Points

_COORDINATES = ["rlnCoordinateY", "rlnCoordinateX"]
# Picks of binned images lie in a corner of the micrograph: by chance so many of them do not.
_CORNER = 0.55
_FEWEST_TO_TELL = 20


def read_picks(paths: Sequence[Path], rows: Sequence[StoreRow]) -> dict[str, Points]:
    """Read picks: coordinate files per micrograph, or tables that name the micrograph.

    Parameters
    ----------
    paths
        STAR files. A table with rlnMicrographName (particles.star, picks.star) may hold any number of
        micrographs; a file without it belongs to the micrograph whose name its own begins with.
    rows
        The session's micrographs.

    Returns
    -------
    dict[str, Points]
        By the name of the row, (y, x) float64 (n, 2) in unbinned pixels.

    Raises
    ------
    SettingError
        If a file has no coordinates or fits no micrograph, or the picks are outside the image or of another
        pixel size; one line that names the file.
    """
    by_stem: dict[str, StoreRow] = {}
    for row in rows:
        stem = Path(row.name).stem
        if stem in by_stem:
            raise SettingError(f"two micrographs are called {stem}: picks cannot be told apart by name")
        by_stem[stem] = row
    found: dict[str, list[Points]] = {}
    for path in paths:
        tables = read_star(path)
        table = _coordinates(tables, path)
        if "rlnMicrographName" in table:
            groups = list(table.groupby(table["rlnMicrographName"].map(lambda name: Path(str(name)).stem)))
        else:
            groups = [(_stem_of_file(path, by_stem), table)]
        _check_pixel_size(tables, path, [by_stem[stem] for stem, _ in groups if stem in by_stem])
        for stem, part in groups:
            if stem not in by_stem:
                raise SettingError(f"{path}: no micrograph of this session is called {stem}")
            points = part[_COORDINATES].to_numpy(dtype=np.float64)
            _check_inside(points, by_stem[stem], path)
            found.setdefault(by_stem[stem].name, []).append(points)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _coordinates(tables: Mapping[str, Table], path: Path) -> pd.DataFrame:
    for table in tables.values():
        if isinstance(table, pd.DataFrame) and set(_COORDINATES) <= set(table.columns):
            if not all(np.issubdtype(table[name].dtype, np.number) for name in _COORDINATES):
                raise SettingError(f"{path}: a coordinate is not a number")
            return table
    raise SettingError(f"{path}: no table with rlnCoordinateX and rlnCoordinateY")


def _stem_of_file(path: Path, by_stem: Mapping[str, StoreRow]) -> str:
    fitting = [stem for stem in by_stem if path.stem == stem or path.stem.startswith(f"{stem}_")]
    if not fitting:
        raise SettingError(f"{path}: its name begins with none of the session's micrographs' names")
    return max(fitting, key=len)


def _check_pixel_size(tables: Mapping[str, Table], path: Path, rows: Sequence[StoreRow]) -> None:
    """Refuse picks whose optics table states another pixel size than the session's."""
    optics = tables.get("optics")
    if not rows or optics is None or "rlnMicrographPixelSize" not in optics:
        return
    stated = float(np.ravel(optics["rlnMicrographPixelSize"])[0])
    own = _unbinned_pixel_size(rows[0])
    if abs(stated / own - 1) > 0.02:
        raise SettingError(
            f"{path}: its picks are of micrographs of {stated:g} A a pixel, the session's have {own:.4g} A; "
            f"multiply the coordinates by {stated / own:.4g}"
        )


def _unbinned_pixel_size(row: StoreRow) -> float:
    return (row.pixel_size_angstrom or 0.0) * (row.height or 0) / (row.unbinned_height or 1)


def _check_inside(points: Points, row: StoreRow, path: Path) -> None:
    shape = np.array([row.unbinned_height or 0, row.unbinned_width or 0])
    outside = ((points < -0.5) | (points > shape - 0.5)).any(axis=1) | ~np.isfinite(points).all(axis=1)
    if outside.any():
        y, x = points[np.argmax(outside)]
        raise SettingError(
            f"{path}: {int(outside.sum())} of {len(points)} picks are outside {row.name} "
            f"({shape[1]} x {shape[0]} pixels), the first at x {x:g}, y {y:g}"
        )
    if len(points) >= _FEWEST_TO_TELL and (points.max(axis=0) < _CORNER * shape).all():
        raise SettingError(
            f"{path}: all {len(points)} picks lie in one corner of {row.name}: they look like picks of a "
            "binned image; multiply the coordinates by the binning"
        )
