"""``emflow simulate``: the files it writes, and what it refuses."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from PIL import Image

from emflow.cli import main
from emflow.cli.simulate import simulate
from emflow.errors import SettingError
from emflow.io.star import read_relion_micrographs, read_star


def files(folder: Path) -> dict[str, bytes]:
    # README.txt holds the command line, and so the folder's name.
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.txt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_set_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    settings = {
        "micrographs": 3,
        "seed": 4,
        "shape": (192, 256),
        "pixel_size": 6.0,
        "diameter": 150.0,
        "dose": 40.0,
        "halves": True,
    }
    simulate(output=tmp_path / "a", **settings)
    simulate(output=tmp_path / "b", **settings)
    first = files(tmp_path / "a")
    assert first == files(tmp_path / "b")
    assert "SIMULATED" in (tmp_path / "a" / "README.txt").read_text()
    assert b"SIMULATED" in first["micrographs.star"]

    micrographs = read_relion_micrographs(tmp_path / "a" / "micrographs.star")
    assert len(micrographs) == 3
    truths = 0
    for number, micrograph in enumerate(micrographs, 1):
        assert micrograph.path == tmp_path / "a" / "micrographs" / f"simulated_{number:05d}.mrc"
        assert micrograph.optics.pixel_size_angstrom == 6.0
        assert micrograph.ctf is not None
        assert 4000 < micrograph.ctf.defocus_v_angstrom <= micrograph.ctf.defocus_u_angstrom < 31000
        with mrcfile.open(micrograph.path) as mrc:
            image = np.array(mrc.data)
            assert float(mrc.voxel_size.x) == pytest.approx(6.0)
        assert image.shape == (192, 256)
        assert image.dtype == np.float32
        parts = []
        for half in ("even", "odd"):
            with mrcfile.open(tmp_path / "a" / half / micrograph.path.name) as mrc:
                parts.append(np.array(mrc.data))
        np.testing.assert_allclose(parts[0] + parts[1], image, rtol=1e-6)
        junk = np.asarray(Image.open(tmp_path / "a" / "junk" / f"simulated_{number:05d}.png"))
        assert junk.shape == image.shape
        truth = read_star(tmp_path / "a" / "truth" / f"simulated_{number:05d}.star")["particles"]
        x, y = np.asarray(truth["rlnCoordinateX"], float), np.asarray(truth["rlnCoordinateY"], float)
        assert ((x >= 0) & (x <= 255) & (y >= 0) & (y <= 191)).all()
        assert (junk[np.rint(y).astype(int), np.rint(x).astype(int)] == 0).all()
        truths += len(x)
    assert truths > 0
    rows = (tmp_path / "a" / "scenes.tsv").read_text().splitlines()
    assert len(rows) == 4
    # One particle in all, of one contrast: visibility is physics' alone.
    assert len({row.split("\t")[2] for row in rows[1:]}) == 1
    assert len({row.split("\t")[9] for row in rows[1:]}) == 1


def test_micrographs_differ_by_seed(tmp_path: Path) -> None:
    for seed in (1, 2):
        simulate(output=tmp_path / str(seed), micrographs=1, seed=seed, shape=(64, 64), pixel_size=8.0)
    name = "micrographs/simulated_00001.mrc"
    assert (tmp_path / "1" / name).read_bytes() != (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize(("data_type", "expected"), [("int8", np.int8), ("float16", np.float16)])
def test_small_types(tmp_path: Path, data_type: str, expected: type) -> None:
    simulate(
        output=tmp_path / "set",
        micrographs=1,
        shape=(128, 128),
        pixel_size=5.0,
        contaminated=False,
        data_type=data_type,  # type: ignore[arg-type]
    )
    with mrcfile.open(tmp_path / "set" / "micrographs" / "simulated_00001.mrc") as mrc:
        assert mrc.data.dtype == expected
        values = np.array(mrc.data, dtype=np.float64)
    assert abs(values.mean()) < 0.01 * values.std()
    assert values.std() == pytest.approx(20 if data_type == "int8" else 1, rel=0.01)


def test_own_model(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    rng = np.random.default_rng(0)
    line = "ATOM  {:5d}  CB  ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00 10.00           C"
    atoms = [line.format(i + 1, i + 1, *(rng.random(3) * 90)) for i in range(3000)]
    model = tmp_path / "mine.pdb"
    model.write_text("\n".join([*atoms, "END", ""]))
    flags = ["--micrographs", "1", "--shape", "128", "128", "--pixel-size", "4", "--clean"]
    main(["simulate", "--model", str(model), *flags, "-o", str(tmp_path / "set")])
    row = (tmp_path / "set" / "scenes.tsv").read_text().splitlines()[1].split("\t")
    assert row[2] == "mine"
    assert 90 < float(row[3]) < 160
    with pytest.raises(SettingError, match="--diameter"):
        simulate(output=tmp_path / "other", models=model, diameter=100.0)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"micrographs": 0}, "--micrographs"),
        ({"shape": (10, 200)}, "--shape"),
        ({"pixel_size": -1.0}, "--pixel-size"),
        ({"pixel_size": float("nan")}, "--pixel-size"),
        ({"diameter": 1e5}, "--diameter"),
        ({"dose": 0.0}, "--dose"),
        ({"defocus": (20000.0, 5000.0)}, "--defocus"),
        ({"models": Path("no/such/folder")}, "--models"),
    ],
)
def test_what_no_microscope_gives_is_refused(tmp_path: Path, settings: dict[str, object], names: str) -> None:
    with pytest.raises(SettingError, match=names):
        simulate(output=tmp_path / "set", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingError, match="there already"):
        simulate(output=tmp_path)
