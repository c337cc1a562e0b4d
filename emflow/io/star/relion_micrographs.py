"""Micrographs, optics and CTF from the STAR files of a RELION project."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emflow.errors import SettingError
from emflow.io.star.reading import TextTable, read_star_text
from emflow.metadata import Ctf, OpticsGroup


@dataclass(frozen=True)
class RelionMicrograph:
    """One row of a RELION micrographs STAR; ``reason`` says what is wrong with it, if anything is.

    ``name`` stands as written, ``path`` is absolute; ``digest`` changes when a value that is read here does.
    """

    name: str
    path: Path
    optics: OpticsGroup
    ctf: Ctf | None
    digest: str
    reason: str = ""


_PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnImagePixelSize", "rlnMicrographOriginalPixelSize")
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_CTF = (*_DEFOCUS, "rlnPhaseShift", "rlnCtfMaxResolution", "rlnCtfFigureOfMerit")


def read_relion_micrographs(path: Path) -> list[RelionMicrograph]:
    """Read the micrographs STAR of a RELION 3.1, 4 or 5 project, in the order of the file.

    Works for what import, motion correction and CTF estimation write (``micrographs.star``,
    ``corrected_micrographs.star``, ``micrographs_ctf.star``). A row whose CTF is no number, as estimation
    programs write where they fail, comes with a ``reason`` and without CTF.

    Raises
    ------
    SettingError
        If it is no such file, its optics are incomplete, or no folder above it holds the micrographs.
    """
    tables = read_star_text(path)
    old = {"", "images", "micrographs", "particles"} & tables.keys()
    if "optics" not in tables and any("rlnMicrographName" in tables[name].labels for name in old):
        convert = f"relion_convert_star --i {path.name} --o new.star"
        raise SettingError(f"{path}: no data_optics (RELION 3.0); convert it: {convert}")
    if "optics" not in tables or "micrographs" not in tables:
        found = ", ".join(f"data_{name}" for name in tables) or "no table"
        raise SettingError(f"{path}: expected data_optics and data_micrographs, found {found}")
    table = tables["micrographs"]
    for label in ("rlnMicrographName", "rlnOpticsGroup"):
        if label not in table.labels:
            raise SettingError(f"{path}: data_micrographs has no column {label}")
    for row, line in zip(table.rows, table.lines, strict=True):
        if len(row) != len(table.labels):
            raise SettingError(f"{path}: line {line}: {len(row)} values for {len(table.labels)} columns")
    if not table.rows:
        raise SettingError(f"{path}: data_micrographs holds no micrograph")
    optics = _optics(path, tables["optics"])
    names, groups = table.column("rlnMicrographName"), table.column("rlnOpticsGroup")
    project = _project(path, names)
    places = {label: table.labels.index(label) for label in _CTF if label in table.labels}
    has_ctf = all(label in places for label in _DEFOCUS)
    micrographs: dict[str, RelionMicrograph] = {}
    for row, line, name, group in zip(table.rows, table.lines, names, groups, strict=True):
        if name in micrographs:
            raise SettingError(f"{path}: line {line}: {name} is listed twice")
        if group not in optics:
            raise SettingError(f"{path}: line {line}: optics group {group} is not in data_optics")
        texts = {label: row[place] for label, place in places.items()}
        ctf, reason = _ctf(texts) if has_ctf else (None, "")
        parts = (name, repr(optics[group]), *(f"{label}={text}" for label, text in texts.items()))
        digest = hashlib.sha256("\t".join(parts).encode()).hexdigest()[:8]
        reason = reason and f"line {line} of {path.name}: {reason}"
        micrographs[name] = RelionMicrograph(name, project / name, optics[group], ctf, digest, reason)
    return list(micrographs.values())


def _optics(path: Path, table: TextTable) -> dict[str, OpticsGroup]:
    groups = {}
    for number, (row, line) in enumerate(zip(table.rows, table.lines, strict=True), 1):
        values = dict(zip(table.labels, row, strict=False))
        where = f"{path}: data_optics, line {line}"
        pixel_size = next((label for label in _PIXEL_SIZES if label in values), None)
        if pixel_size is None:
            raise SettingError(f"{where}: no {' or '.join(_PIXEL_SIZES)}")
        numbers = {}
        for label in (pixel_size, "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
            # Old imports leave the amplitude contrast out; RELION then takes 0, which no sample has.
            text = values.get(label, "0.1" if label == "rlnAmplitudeContrast" else "")
            value = _number(text)
            if value is None:
                raise SettingError(f"{where}: {label} is {text!r}, expected a number")
            numbers[label] = value
        group = values.get("rlnOpticsGroup", str(number))
        name = values.get("rlnOpticsGroupName", f"opticsGroup{group}")
        groups[group] = OpticsGroup(name, *numbers.values())
    return groups


def _project(path: Path, names: Sequence[str]) -> Path:
    """Return the RELION project's folder, from which the names in its STAR files start."""
    relative = [name for name in names if not Path(name).is_absolute()]
    if not relative:
        return path.resolve().parent
    # One may have vanished; that all of these have means that the project lies elsewhere.
    sample = relative[:: max(1, len(relative) // 20)]
    for folder in path.resolve().parents:
        if any((folder / name).exists() for name in sample):
            return folder
    raise SettingError(
        f"{path}: {sample[0]} is in no folder above it; the STAR must lie in its RELION project"
    )


def _ctf(texts: Mapping[str, str]) -> tuple[Ctf | None, str]:
    numbers = {label: _number(text) for label, text in texts.items()}
    wrong = next(
        (label for label in (*_DEFOCUS, "rlnPhaseShift") if label in numbers and numbers[label] is None), None
    )
    if wrong:
        return None, f"{wrong} is {texts[wrong]!r}, no number"
    defocus_u, defocus_v, angle = (numbers[label] or 0.0 for label in _DEFOCUS)
    return Ctf(
        defocus_u,
        defocus_v,
        angle,
        numbers.get("rlnPhaseShift") or 0.0,
        numbers.get("rlnCtfMaxResolution"),
        numbers.get("rlnCtfFigureOfMerit"),
    ), ""


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None
