"""An export made after another one: what is the same is not parsed again, and nothing else differs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from relion_session import Entry, export, write_batch

from emflow.io import relion_recheck
from emflow.io.mrc import write_mrc
from emflow.io.relion_recheck import CHECKED, WrittenPicks, check_export
from emflow.metadata import Ctf

SMALLER = np.zeros((200, 400), dtype=np.float32)


def batches(session: Path, count: int) -> list[Path]:
    """Write batches of two micrographs with five picks each."""
    made = []
    for number in range(count):
        random = np.random.default_rng(number)
        entries = [
            Entry(
                f"m{number}_{n}.mrc",
                xy=[(float(x), float(y)) for x, y in random.uniform(40, 250, (5, 2))],
                merits=[0.9, 0.8, 0.7, 0.6, 0.5],
                ctf=Ctf(9000.0 + number, 8800.0, 10.0 * n, 0.0, 4.0, 0.9),
            )
            for n in range(2)
        ]
        made.append(write_batch(session / "results" / f"{number:04d}", entries))
    return made


def files(project: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def parsed(monkeypatch) -> Iterator[list[str]]:
    """Names of the coordinate files that the check has read so far."""
    names = []
    read = relion_recheck.read_relion_star

    def noted(path, lines=None):
        if path.name.endswith("_autopick.star"):
            names.append(path.name.removesuffix("_autopick.star"))
        return read(path, lines)

    monkeypatch.setattr("emflow.io.relion_project.read_relion_star", noted)
    return names


def test_one_batch_more_gives_what_a_fresh_export_gives(tmp_path, parsed):
    made = batches(tmp_path, 4)
    project = export(tmp_path, made[:3])
    assert len(parsed) == 6
    parsed.clear()
    export(tmp_path, made)
    assert parsed == ["m3_0", "m3_1"]
    again = files(project)
    project.rename(tmp_path / "first")
    assert files(export(tmp_path, made)) == again


def test_other_settings_and_other_picks_are_checked(tmp_path, parsed):
    made = batches(tmp_path, 2)
    export(tmp_path, made)
    for change in ({"threshold": 0.75}, {"threshold": 0.75, "diameter_angstrom": 80.0}):
        parsed.clear()
        export(tmp_path, made, **change)
        assert len(parsed) == 4
    write_batch(made[1].parent, [Entry("m1_0.mrc", xy=[(100.0, 100.0)]), Entry("m1_1.mrc")])
    parsed.clear()
    export(tmp_path, made, threshold=0.75, diameter_angstrom=80.0)
    assert parsed == ["m1_0"]


@pytest.mark.parametrize("name", ["AutoPick/Micrographs/m0_0_autopick.star", "particles.star", CHECKED])
@pytest.mark.parametrize("left", [0, 60, None])
def test_whatever_a_fault_left_is_made_whole(tmp_path, name, left):
    """A file cut short, or gone, as after a lost disk: the next export ends as a fresh one does."""
    made = batches(tmp_path, 2)
    project = export(tmp_path, made)
    whole = files(project)
    if left is None:
        (project / name).unlink()
    else:
        (project / name).write_bytes(whole[name][:left])
    (project / "export.tsv").unlink()
    assert files(export(tmp_path, made)) == whole


def test_a_fault_between_two_exports_loses_nothing(tmp_path, monkeypatch):
    """It ends after the files were written and before they were checked."""
    made = batches(tmp_path, 3)
    export(tmp_path, made[:1])

    def killed(*_) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("emflow.cli.export_relion.check_export", killed)
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path, made[:2])
    after_fault = files(export(tmp_path, made))
    (tmp_path / "relion").rename(tmp_path / "first")
    assert files(export(tmp_path, made)) == after_fault


def test_a_micrograph_that_changed_under_its_picks_is_refused(tmp_path, capsys):
    """Its picks are the same to the byte, and lie outside of the image that is there now."""
    made = batches(tmp_path, 2)
    project = export(tmp_path, made)
    record = (project / CHECKED).read_bytes()
    write_mrc(tmp_path / "data/m1_0.mrc", SMALLER, 1.5)
    with pytest.raises(SystemExit):
        export(tmp_path, made)
    told = capsys.readouterr().err
    assert "particles.star: data_particles, rlnCoordinateX, row " in told
    assert "m1_0.mrc (400 x 200 pixels)" in told
    assert (project / CHECKED).read_bytes() == record


def test_files_that_differ_from_what_was_written_are_refused(tmp_path):
    """Not by the export, which writes them anew, but by the check that follows: it reads what is there."""
    made = batches(tmp_path, 2)
    project = export(tmp_path, made)
    path = project / "particles.star"
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b"m0_1.mrc" in line)
    wrong = [*lines[:place], b"1" + lines[place], *lines[place + 1 :]]
    blocks = {name: b"".join(line for line in lines if name.encode() in line) for name in _names(2)}
    written = {
        name: WrittenPicks(
            relion_recheck.sha256(project / f"AutoPick/{name[:-4]}_autopick.star"),
            relion_recheck.hashlib.sha256(block).hexdigest(),
            len(block),
        )
        for name, block in blocks.items()
    }
    assert check_export(project, written) == []
    path.write_bytes(b"".join(wrong))
    assert any("Micrographs/m0_1.mrc" in problem for problem in check_export(project, written))


def _names(count: int) -> list[str]:
    return [f"Micrographs/m{number}_{n}.mrc" for number in range(count) for n in range(2)]


def test_new_rules_look_at_everything(tmp_path, parsed, monkeypatch):
    made = batches(tmp_path, 2)
    export(tmp_path, made)
    parsed.clear()
    export(tmp_path, made)
    assert parsed == []
    monkeypatch.setattr(relion_recheck, "_RULES", 99)
    export(tmp_path, made)
    assert len(parsed) == 4
