"""What the stages that read inputs share: the rows they were planned for, quarantine, a batch's table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emflow.cli.progress import say
from emflow.errors import BadInputError, SettingError
from emflow.io.claims import Claim
from emflow.io.index import FAILED, SUPERSEDED, MicrographRow, write_failures, write_index
from emflow.io.inputs import (
    InputRow,
    batch_digest,
    check_unchanged,
    latest_row,
    read_inputs,
    superseded_names,
)

# Calibrations differ from headers by a few percent; another magnification by far more.
_PIXEL_SIZE_TOLERANCE = 0.05


@dataclass(frozen=True)
class InputBatch:
    """The files of one batch of a session, and the names among them that a later batch lists again."""

    stage: str
    rows: Sequence[InputRow]
    listed_again: frozenset[str]

    @staticmethod
    def read(stage: str, inputs: Path, *, session: str, batch: str, digest: str) -> "InputBatch":
        """Read a batch's rows of inputs.tsv.

        Raises
        ------
        SettingError
            If they are not what ``digest`` says, that is not what the job was planned for.
        """
        rows = read_inputs(inputs)
        ours = [row for row in rows if row.session == session and row.batch == batch]
        _check_planned(ours, digest, f"{inputs}: {session} {batch}")
        return InputBatch(stage, ours, frozenset(superseded_names(rows, session, batch)))

    def each(self, use: Callable[[InputRow], MicrographRow]) -> list[MicrographRow]:
        """Return a row for each file: what ``use`` makes of it, or why it is left out.

        A file that changed since it was listed, or that ``use`` refuses with `BadInputError`, is quarantined;
        one that a later batch lists again is superseded by that.
        """
        return [self._one(row, use) for row in self.rows]

    def _one(self, row: InputRow, use: Callable[[InputRow], MicrographRow]) -> MicrographRow:
        try:
            check_unchanged(row)
            return use(row)
        except BadInputError as error:
            if row.name in self.listed_again:
                return MicrographRow(row.name, SUPERSEDED, "a newer version stands in a later batch")
            say(self.stage, f"left out {row.path}: {error}")
            return MicrographRow(row.name, FAILED, f"{row.path} {error}")


def read_planned(inputs: Path, session: str, tilt_series: str, digest: str) -> InputRow:
    """Read the row of inputs.tsv of a tilt series or tomogram, which is in no batch.

    Raises
    ------
    SettingError
        If it is not what ``digest`` says, that is not what the job was planned for.
    """
    row = latest_row(read_inputs(inputs), session, tilt_series)
    ours = [] if row is None else [row]
    _check_planned(ours, digest, f"{inputs}: {session} {tilt_series}")
    return ours[0]


def _check_planned(rows: Sequence[InputRow], digest: str, named: str) -> None:
    if not rows or batch_digest(rows) != digest:
        raise SettingError(f"{named} is not what this job was planned for; run again")


def write_table(claim: Claim, output: Path, table: Sequence[MicrographRow]) -> None:
    """Write a batch's failures.tsv and, last, its table, if this is still the attempt that counts."""
    claim.check()
    write_failures(output.parent, table)
    write_index(output, table, MicrographRow)
    claim.release()


def check_pixel_size(
    stated: float | None, expected: float, *, says: str, where: str = "in its header"
) -> None:
    """Refuse a file that states, ``where`` tells in which place, another pixel size (A) than ``says`` does.

    Raises
    ------
    BadInputError
        If they differ by more than 5 %.
    """
    if stated is not None and abs(stated / expected - 1) > _PIXEL_SIZE_TOLERANCE:
        raise BadInputError(f"has a pixel size of {stated:.4g} A {where}, {says} {expected:.4g} A")


def check_stated_pixel_size(
    stated: float | None,
    pixel_size_angstrom: float | None,
    header_pixel_size_angstrom: float | None,
    *,
    where: str,
) -> None:
    """Refuse a tilt series or tomogram that states another pixel size than its session.

    Parameters
    ----------
    stated
        In angstrom; None where its files say none.
    pixel_size_angstrom, header_pixel_size_angstrom
        The session's; where headers are known to be wrong the second is what they should say.
    where
        Where it is stated.

    Raises
    ------
    BadInputError
        As `check_pixel_size`.
    """
    if header_pixel_size_angstrom is not None:
        expected, column = header_pixel_size_angstrom, "header_pixel_size_angstrom"
    elif pixel_size_angstrom is not None:
        expected, column = pixel_size_angstrom, "pixel_size_angstrom"
    else:
        return
    check_pixel_size(stated, expected, says=f"{column} of sessions.tsv is", where=where)
