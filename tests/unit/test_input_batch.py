"""A batch's rows, and what becomes of files that cannot be used: what import and motion correction share."""

from dataclasses import astuple, fields
from pathlib import Path

import pytest

from emflow.cli.input_batch import InputBatch, check_pixel_size, write_table
from emflow.errors import BadInputError, SettingError, SupersededError
from emflow.io.claims import Claim
from emflow.io.index import FAILED, OK, SUPERSEDED, MicrographRow, read_index
from emflow.io.inputs import InputRow, batch_digest


def listed(folder: Path, name: str, batch: str = "0001") -> InputRow:
    path = folder / name
    path.write_text(name)
    status = path.stat()
    return InputRow("s", batch, name, str(path), status.st_size, status.st_mtime_ns, 4, 4)


def read(folder: Path, rows: list[InputRow], batch: str = "0001") -> InputBatch:
    table = folder / "inputs.tsv"
    lines = [[field.name for field in fields(InputRow)], *(map(str, astuple(row)) for row in rows)]
    table.write_text("".join("\t".join(line) + "\n" for line in lines))
    digest = batch_digest(row for row in rows if row.batch == batch)
    return InputBatch.read("correct_motion", table, session="s", batch=batch, digest=digest)


def use(row: InputRow) -> MicrographRow:
    if "bad" in row.name:
        raise BadInputError("is no movie")
    return MicrographRow(row.name, OK)


def test_each_file_gets_a_row_and_a_bad_one_costs_only_itself(tmp_path, capsys):
    rows = [listed(tmp_path, name) for name in ("a", "bad", "changed", "gone", "z")]
    Path(rows[2].path).write_text("longer than before")
    Path(rows[3].path).unlink()
    table = read(tmp_path, rows).each(use)
    assert [(row.name, row.status) for row in table] == [
        ("a", OK),
        ("bad", FAILED),
        ("changed", FAILED),
        ("gone", FAILED),
        ("z", OK),
    ]
    reasons = [row.reason for row in table]
    assert reasons[1] == f"{rows[1].path} is no movie"
    assert "changed after it was listed" in reasons[2]
    assert "vanished after it was listed" in reasons[3]
    assert capsys.readouterr().err.count("left out") == 3


def test_a_bad_file_that_a_later_batch_lists_again_is_superseded(tmp_path):
    rows = [
        listed(tmp_path, "bad"),
        listed(tmp_path, "good"),
        *(listed(tmp_path, n, "0002") for n in ("bad",)),
    ]
    assert [row.status for row in read(tmp_path, rows).each(use)] == [SUPERSEDED, OK]
    # Of the later batch itself nothing is newer.
    assert [row.status for row in read(tmp_path, rows, "0002").each(use)] == [FAILED]


def test_another_plan_is_refused(tmp_path):
    rows = [listed(tmp_path, "a")]
    read(tmp_path, rows)
    with pytest.raises(SettingError, match="s 0001 is not what this job was planned for"):
        InputBatch.read("correct_motion", tmp_path / "inputs.tsv", session="s", batch="0001", digest="0" * 16)


def test_the_table_comes_with_its_failures_and_from_the_last_attempt_alone(tmp_path):
    output = tmp_path / "micrographs.tsv"
    older, newer = Claim(output), Claim(output)
    table = [MicrographRow("a", OK), MicrographRow("b", FAILED, "b is no movie")]
    with pytest.raises(SupersededError):
        write_table(older, output, table[:1])
    assert not output.exists()
    write_table(newer, output, table)
    assert read_index(output, MicrographRow) == table
    assert (tmp_path / "failures.tsv").read_text() == "name\treason\nb\tb is no movie\n"


@pytest.mark.parametrize(
    ("stated", "fits"), [(None, True), (1.04, True), (0.96, True), (1.06, False), (0.94, False)]
)
def test_a_header_may_differ_by_a_twentieth(stated, fits):
    if fits:
        check_pixel_size(stated, 1.0, says="the settings say")
        return
    with pytest.raises(BadInputError, match="in its header, the settings say 1 A"):
        check_pixel_size(stated, 1.0, says="the settings say")
