"""Rules for RELION's single-particle STAR tables: what RELION rejects, and what it misreads in silence.

RELION 3.1 turns "nan" and text in a numeric column into 0, ignores a label it does not know, takes a
missing defocus or amplitude contrast for 0 and fills up boxes that overhang with streaks, each time with
return code 0. So each of these is refused here, as well as what RELION refuses itself.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emflow.relion_labels import FLAG, KIND, NUMBER, TEXT

TABLES = ("optics", "micrographs", "particles", "coordinate_files", "")
"""The tables of a single-particle project; the one without a name holds a micrograph's coordinates."""

OPTICS = (
    "rlnOpticsGroupName",
    "rlnOpticsGroup",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)
OPTICS_OF_IMAGES = ("rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality")
COORDINATES = (
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnAutopickFigureOfMerit",
    "rlnClassNumber",
    "rlnAnglePsi",
)
DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
CTF_QUALITY = ("rlnCtfMaxResolution", "rlnCtfFigureOfMerit")
CTF_OF_IMAGES = ("rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor")

# Lowest and highest value that makes sense; beyond it the number stands in the wrong unit or column.
_BOUNDS = {
    "rlnVoltage": (10.0, 2000.0),
    "rlnSphericalAberration": (0.0, 100.0),
    "rlnAmplitudeContrast": (0.0, 1.0),
    "rlnMicrographPixelSize": (0.01, 1000.0),
    "rlnMicrographOriginalPixelSize": (0.01, 1000.0),
    "rlnImagePixelSize": (0.01, 1000.0),
    "rlnOpticsGroup": (1.0, math.inf),
    "rlnImageDimensionality": (2.0, 3.0),
    "rlnImageSize": (2.0, math.inf),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a table; ``row`` counts from 1, ``line`` is that of the file."""

    message: str
    table: str | None = None
    column: str = ""
    row: int | None = None
    line: int | None = None

    def __str__(self) -> str:
        """Say it in one line: table, column, row, line, and what is wrong."""
        parts = [f"data_{self.table}"] if self.table is not None else []
        parts += [self.column] if self.column else []
        parts += [f"row {self.row}"] if self.row is not None else []
        parts += [f"line {self.line}"] if self.line is not None else []
        return f"{', '.join(parts)}: {self.message}" if parts else self.message


def check_labels(table: str, labels: Sequence[str], *, line: int | None = None) -> list[Problem]:
    """Refuse labels that RELION does not know or that stand twice, and say which was meant."""
    problems = []
    for place, label in enumerate(labels):
        if label in labels[:place]:
            problems.append(Problem("stands twice", table, label, line=line))
        elif label not in KIND:
            meant = difflib.get_close_matches(label, KIND, n=1, cutoff=0.6)
            hint = f"; is {meant[0]} meant?" if meant else ""
            problems.append(Problem(f"RELION knows no such label{hint}", table, label, line=line))
    return problems


def check_layout(tables: Mapping[str, Sequence[str]], *, has_ctf: bool = False) -> list[Problem]:
    """Refuse a file whose tables or columns are not those of RELION's single-particle files.

    Parameters
    ----------
    tables
        Labels of every table of the file.
    has_ctf
        Whether the file promises a CTF by its name (``micrographs_ctf.star``).
    """
    problems = []
    for name, labels in tables.items():
        if name not in TABLES:
            meant = difflib.get_close_matches(name, TABLES, n=1, cutoff=0.4)
            hint = f"; is data_{meant[0]} meant?" if meant else ""
            problems.append(Problem(f"no table of RELION's single-particle files{hint}", name))
        elif not labels:
            problems.append(Problem("has no columns", name))
    kinds = [name for name in TABLES[1:] if name in tables]
    if not kinds and not problems:
        problems.append(Problem("none of data_micrographs, data_particles, data_coordinate_files, data_"))
    if len(kinds) > 1:
        problems.append(
            Problem(f"{' and '.join(f'data_{kind}' for kind in kinds)} belong in files of their own")
        )
    for kind in kinds:
        problems += _layout(kind, tables, has_ctf)
    return problems


def _layout(kind: str, tables: Mapping[str, Sequence[str]], has_ctf: bool) -> list[Problem]:
    labels = tables[kind]
    if kind == "coordinate_files":
        return _missing(kind, labels, ("rlnMicrographName", "rlnMicrographCoordinates"))
    if kind == "":
        if "rlnImageName" in labels or "rlnMicrographName" in labels:
            other = "particles" if "rlnImageName" in labels or "rlnCoordinateX" in labels else "micrographs"
            return [Problem(f"has no name; data_{other} is meant", kind)]
        return _missing(kind, labels, COORDINATES)
    if (
        kind == "particles"
        and not {"rlnMicrographName", "rlnImageName"} & {*labels}
        and "optics" not in tables
    ):
        return [Problem("a micrograph's coordinates stand in a table without a name: data_", kind)]
    problems = []
    if "optics" not in tables:
        problems.append(Problem("is absent (RELION 3.0 wrote such files); see relion_convert_star", "optics"))
    optics = tables.get("optics", ())
    # Extracted particles name images; picks for re-extraction keep the micrograph's pixel size instead.
    images = kind == "particles" and ("rlnImageName" in labels or "rlnMicrographPixelSize" not in optics)
    if optics:
        sizes: tuple[str, ...] = OPTICS_OF_IMAGES if kind == "particles" else ()
        sizes += () if images else ("rlnMicrographPixelSize",)
        problems += _missing("optics", optics, (*OPTICS, *sizes))
    required = ["rlnMicrographName", "rlnOpticsGroup"]
    if kind == "particles":
        required += COORDINATES[:2] if images else COORDINATES
        required += ["rlnImageName"] if images else []
    ctf = (*DEFOCUS, *CTF_QUALITY, *CTF_OF_IMAGES, "rlnCtfAstigmatism")
    if has_ctf or any(label in labels for label in ctf):
        required += DEFOCUS
        required += CTF_OF_IMAGES if kind == "particles" else ()
    if any(label in labels for label in CTF_QUALITY):
        required += CTF_QUALITY
    return problems + _missing(kind, labels, required)


def _missing(table: str, labels: Sequence[str], required: Sequence[str]) -> list[Problem]:
    return [
        Problem(_ABSENT.get(label, "is absent"), table, label) for label in required if label not in labels
    ]


_ABSENT = {
    "rlnDefocusU": "is absent: RELION would take a defocus of 0",
    "rlnDefocusV": "is absent: RELION would take a defocus of 0",
    "rlnDefocusAngle": "is absent: RELION would take an angle of 0",
    "rlnAmplitudeContrast": "is absent: RELION would take a contrast of 0",
}


def check_values(
    table: str, labels: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int], first_row: int = 0
) -> tuple[list[Problem], dict[str, NDArray[np.float64]]]:
    """Refuse rows of a wrong length, and values that are not what their column holds.

    Parameters
    ----------
    table, labels
        The table's name and columns.
    rows, lines
        Its values as text, n rows, and the line of the file that each stands in.
    first_row
        How many rows of the table stand before these.

    Returns
    -------
    problems
        At most one a value.
    numbers
        The numeric columns, shape (n,); empty when a row has a wrong length. A bad value is NaN.
    """
    width = len(labels)
    problems = (
        []
        if {*map(len, rows)} == {width}
        else [
            Problem(f"{len(row)} values for {width} columns", table, "", first_row + place + 1, lines[place])
            for place, row in enumerate(rows)
            if len(row) != width
        ]
    )
    if problems or not rows:
        return problems, {}
    numbers = {}
    for label, texts in zip(labels, zip(*rows, strict=True), strict=True):
        kind = KIND.get(label, TEXT)
        if kind == TEXT:
            blank = not all(map(str.strip, texts))
            bad = [place for place, text in enumerate(texts) if not text.strip()] if blank else []
        else:
            values = _numbers(texts, kind)
            numbers[label] = values
            lowest, highest = _BOUNDS.get(label, (-math.inf, math.inf))
            if kind == FLAG:
                lowest, highest = 0.0, 1.0
            with np.errstate(invalid="ignore"):
                good = np.isfinite(values) & (values >= lowest) & (values <= highest)
            bad = [] if good.all() else np.flatnonzero(~good).tolist()
            if label in _BOUNDS:
                kind += f" from {lowest:g}" + (f" to {highest:g}" if math.isfinite(highest) else "")
        problems += [
            Problem(f"{texts[place]!r}, expected {kind}", table, label, first_row + place + 1, lines[place])
            for place in bad
        ]
    return problems, numbers


_INTEGER = re.compile(r"[+-]?\d+")


def _numbers(texts: Sequence[str], kind: str) -> NDArray[np.float64]:
    """Parse numbers as strictly as RELION's C reads them without losing anything; others become NaN."""
    try:
        values = np.array(texts, dtype=np.float64)
    except ValueError:
        values = np.array([_float(text) for text in texts])
    # Python takes 1_000 for a thousand, C for one.
    if kind != NUMBER or "_" in "".join(texts):
        pattern = _INTEGER if kind != NUMBER else re.compile(r"[^_]+")
        words = {text: bool(pattern.fullmatch(text)) for text in set(texts)}
        values = np.where([words[text] for text in texts], values, np.nan)
    return values


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
