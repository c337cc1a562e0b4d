"""AreTomo's alignments, .aln files: the global part of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emflow.errors import BadInputError
from emflow.io.tilt_series.exposures import Alignment, alignments
from emflow.tilt_conventions import geometry_from_aretomo

_COLUMNS = {"SEC", "ROT", "TX", "TY", "TILT"}


@dataclass(frozen=True)
class AretomoAlignment:
    """What an .aln file says: image by image, by the section of the raw stack from 0, dark ones left out."""

    sections: tuple[int, ...]
    images: tuple[Alignment, ...]


def read_aln(path: Path, pixel_size_angstrom: float) -> AretomoAlignment:
    """Read the global alignment of an .aln file, of AreTomo 1 to 3.

    AreTomo counts sections from 0 in old versions and from 1 in new ones; as in its own reader
    (CLoadAlignFile.cpp), a section 0 anywhere tells which.

    Parameters
    ----------
    path
        The file.
    pixel_size_angstrom
        Of the raw images: shifts are written in their pixels.

    Raises
    ------
    BadInputError
        Naming the line that cannot be read.
    """
    columns: dict[str, int] = {}
    rows: list[list[float]] = []
    dark: list[int] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BadInputError(f"has an {path.name} that cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if line.lstrip().startswith("#"):
            if "SEC" in words and words[0] == "#":
                columns = {name: place for place, name in enumerate(words[1:])}
            elif "DarkFrame" in words:
                dark.append(int(words[4]) if len(words) > 4 and words[4].isdigit() else -1)
            elif "Local" in words:
                break
            continue
        if not words:
            continue
        try:
            rows.append([float(words[columns[name]]) for name in ("SEC", "ROT", "TX", "TY", "TILT")])
        except (IndexError, KeyError, ValueError):
            raise BadInputError(f"has an {path.name} whose line {number} cannot be read") from None
    if not rows:
        raise BadInputError(f"has an {path.name} that aligns no image")
    table = np.array(rows)
    sections = table[:, 0].astype(int)
    first = 0 if 0 in sections or 0 in dark else 1
    geometry = geometry_from_aretomo(table[:, 1], table[:, 2:4], table[:, 4], pixel_size_angstrom)
    return AretomoAlignment(tuple(int(s) - first for s in sections), tuple(alignments(geometry)))
