"""What of a session is exported: each micrograph's last batch, its candidates, and how many of them count."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from emflow.errors import SettingError
from emflow.io.ctf_pictures import ctf_picture_path
from emflow.io.index import FAILED, OK, MicrographRow, PickRow, read_index
from emflow.io.star import read_star_text
from emflow.metadata import Picks
from emflow.relion import relion_micrograph_name

_PICKS = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit")


@dataclass(frozen=True)
class Entry:
    """What counts of a micrograph: its batch's number, its rows, and the picture of a CTF fitted here."""

    batch: int
    picks: PickRow
    image: MicrographRow
    ctf_picture: Path | None


def choose(batches: list[Path], estimated_ctf: bool) -> dict[str, Entry]:
    """Return what counts of every micrograph, by name; one whose file is gone counts as failed."""
    chosen: dict[str, Entry] = {}
    for number, batch in enumerate(batches):
        images = {row.name: row for row in read_index(batch.parent / "micrographs.tsv", MicrographRow)}
        fitted = images
        if estimated_ctf:
            fitted = {row.name: row for row in read_index(batch.parent / "ctf.tsv", MicrographRow)}
        for row in read_index(batch, PickRow):
            if row.status not in (OK, FAILED):
                continue  # superseded: a later batch has it
            if row.name not in images or row.name not in fitted:
                beside = "ctf.tsv" if row.name in images else "micrographs.tsv"
                raise SettingError(f"{batch}: {row.name} is not in {beside} beside it; run the batch again")
            image = fitted[row.name]
            # A CTF that came with the micrograph was handed on as it was.
            own = image.status == OK and image != images[row.name]
            picture = ctf_picture_path(batch.parent, row.name) if own else None
            chosen[row.name] = Entry(number, row, image, picture)
    for name, entry in chosen.items():
        if entry.picks.status != OK:
            continue
        reason = entry.image.reason
        if entry.image.status == OK:
            if Path(entry.image.path).is_file():
                continue
            reason = f"{entry.image.path} vanished after it was picked"
        chosen[name] = replace(entry, picks=replace(entry.picks, status=FAILED, reason=reason))
    return dict(sorted(chosen.items()))


def limit_of(row: PickRow, threshold: Literal["auto"] | float, batch: Path) -> float:
    """Return the lowest figure of merit that counts in a micrograph."""
    if threshold != "auto":
        return threshold
    if row.suggested_threshold is None:
        raise SettingError(
            f"{batch}: no suggested threshold for {row.name}; set export.threshold to a number"
        )
    return row.suggested_threshold


def candidates_of(batch: Path, rows: dict[str, PickRow]) -> Iterator[tuple[str, Picks]]:
    """Yield the candidates of each micrograph of one batch, best first."""
    if not rows:
        return
    path = batch.parent / "picks.star"
    table = read_star_text(path).get("picks")  # as text: thrice as fast, and "nan" is seen
    if table is None or not table.is_loop:
        raise SettingError(f"{path}: expected a loop data_picks; remove {batch} and run again")
    try:
        numbers = [np.array(table.column(label), dtype=np.float64) for label in _PICKS[1:]]
        code, links = pd.factorize(np.array(table.column(_PICKS[0]), dtype=object))
    except ValueError as error:
        raise SettingError(
            f"{path}: a column is absent or no number ({error}); remove {batch} and run again"
        ) from None
    if not all(np.isfinite(column).all() for column in numbers):
        raise SettingError(f"{path}: holds values that are no numbers; remove {batch} and run again")
    order = np.argsort(code, kind="stable")
    ends = np.cumsum(np.bincount(code, minlength=len(links)))
    places = {link: order[start:end] for link, start, end in zip(links, (0, *ends), ends, strict=False)}
    for name, row in rows.items():
        place = places.get(relion_micrograph_name(name), order[:0])
        if row.candidates is not None and len(place) != row.candidates:
            message = f"{len(place)} candidates of {name}, its index says {row.candidates}"
            raise SettingError(f"{path}: {message}; remove {batch} and run again")
        yield name, Picks(*(column[place] for column in numbers))
