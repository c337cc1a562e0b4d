"""Two attempts at one table: the older, whose run was killed, ends after the newer."""

from pathlib import Path

import numpy as np
import pytest

from emflow.cli import main
from emflow.cli.build_tiles import build_tiles
from emflow.errors import SupersededError
from emflow.io.claims import Claim
from emflow.io.index import MicrographRow, write_index
from emflow.io.mrc import write_mrc


def test_the_attempt_that_began_last_counts(tmp_path):
    index = tmp_path / "batch/picks.tsv"
    older = Claim(index)
    older.check()
    newer = Claim(index)
    with pytest.raises(SupersededError, match=r"a later attempt has taken .*picks\.tsv: "):
        older.check()
    newer.check()
    newer.release()
    with pytest.raises(SupersededError):
        older.check()
    assert list(index.parent.iterdir()) == []


def test_tables_of_one_folder_have_claims_of_their_own(tmp_path):
    picks, ctf = Claim(tmp_path / "picks.tsv"), Claim(tmp_path / "ctf.tsv")
    picks.check()
    ctf.check()


@pytest.fixture
def tiles(tmp_path) -> Path:
    image = np.random.default_rng(1).normal(10, 2, (128, 128)).astype(np.float32)
    write_mrc(tmp_path / "m0.mrc", image, pixel_size_angstrom=4.0)
    row = MicrographRow("m0", "ok", "", str(tmp_path / "m0.mrc"), 128, 128, "one", 4.0, 300.0, 2.7, 0.1)
    write_index(tmp_path / "micrographs.tsv", [row], MicrographRow)
    build_tiles(
        micrographs=tmp_path / "micrographs.tsv",
        output=tmp_path / "tiles.tsv",
        pixel_size_angstrom=4.0,
        outlier_sigmas=6.0,
        background_sigma_angstrom=300.0,
    )
    return tmp_path / "tiles.tsv"


def attempt(stage: str, folder: Path) -> None:
    if stage == "pick":
        flags = [f"--images={folder}/tiles.tsv", "--model=picker", "--diameter-angstrom=120"]
    else:
        flags = [
            f"--micrographs={folder}/micrographs.tsv",
            "--min-defocus-angstrom=5000",
            "--max-defocus-angstrom=30000",
            "--max-astigmatism-angstrom=1000",
            "--coarsest-resolution-angstrom=40",
            "--finest-resolution-angstrom=9",
            "--no-phase-plate",
            "--no-replace",
        ]
    name = {"pick": "picks", "estimate-ctf": "ctf"}[stage]
    main([stage, *flags, "--device=cpu", f"--output={folder}/{name}.tsv"])


@pytest.mark.parametrize(
    ("stage", "files"),
    [("pick", ["picks.tsv", "picks.star"]), ("estimate-ctf", ["ctf.tsv"])],
)
def test_an_older_attempt_that_ends_later_writes_nothing(stage, files, tiles, monkeypatch, capsys):
    """While the older is at its work the newer begins, ends, and its result is marked."""
    folder = tiles.parent
    whole = Claim.__init__
    later = []

    def begin(claim, index):
        whole(claim, index)
        if not later:
            later.append(True)
            attempt(stage, folder)
            for name in files:
                with (folder / name).open("a") as stream:
                    stream.write("newer\n")

    monkeypatch.setattr(Claim, "__init__", begin)
    attempt(stage, folder)
    assert "a later attempt has taken" in capsys.readouterr().err
    for name in files:
        assert (folder / name).read_text().endswith("newer\n")
    assert not list(folder.glob(".*.claim"))
