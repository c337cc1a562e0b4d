"""A small session from micrographs to STAR files: the same whatever the batches, and every time."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from workflow.conftest import command, init, planned

from emflow.io.index import OK, MicrographRow, PickRow, StoreRow, read_index
from emflow.io.star import read_star


def stars(session: Path) -> dict[str, bytes]:
    relion = session / "results/spa/my_session/relion"
    return {str(path.relative_to(relion)): path.read_bytes() for path in sorted(relion.rglob("*.star"))}


def test_batches_and_repetition_change_no_byte(finished, micrographs, tmp_path):
    """One batch of six, from nothing, gives the STAR files of three batches of two."""
    session = init(tmp_path, f"{micrographs}/*/*.mrc", "--batch-size", "8")
    command(session, "snakemake", "--cores", "2")
    assert stars(session) == stars(finished)
    assert len(stars(session)) >= 3


def test_every_result_is_there(finished):
    results = finished / "results/spa/my_session"
    rows = [row for path in sorted(results.glob("batch*/picks.tsv")) for row in read_index(path, PickRow)]
    assert [row.status for row in rows] == [OK] * 6
    for batch in sorted(results.glob("batch*")):
        for row in read_index(batch / "ctf.tsv", MicrographRow):
            assert row.ctf_figure_of_merit is not None
        for stage in ("tiles", "denoised"):
            stored = read_index(batch / f"{stage}.tsv", StoreRow)
            assert {path.name for path in batch.glob(f"{stage}.*.zarr")} == {row.store for row in stored}
    assert len(list((results / "overlays").glob("*.png"))) == 6
    table = read_star(results / "relion/micrographs_ctf.star")["micrographs"]
    assert len(table) == 6
    for name in table["rlnCtfImage"]:
        assert (results / "relion" / name.removesuffix(":mrc")).read_bytes()
    assert not (results / "relion/micrographs.star").exists()
    assert len(list((results / "ctf").glob("*.png"))) == 6
    text = (results / "summary.txt").read_text()
    assert "particles from 6 micrographs" in text
    assert "defocus: median" in text
    # Discs in white noise make no Thon rings, and that is said.
    assert "6 CTFs are doubtful" in text
    command(finished, "emflow", "check-star", str(results / "relion"))


def test_stores_are_valid_ome_zarr(finished):
    import zarr
    from ome_zarr_models.v05.image import Image

    for store in sorted((finished / "results").rglob("*.zarr")):
        image = Image.from_zarr(zarr.open_group(store, mode="r"))
        (multiscale,) = image.attributes.ome.multiscales
        assert [axis.name for axis in multiscale.axes] == ["micrograph", "y", "x"]


def test_a_relion_star_brings_optics_and_ctf(finished, tmp_path):
    """The export of one session, given CTF columns, is the input of the next."""
    relion = finished / "results/spa/my_session/relion"
    head, _, rows = (relion / "micrographs_ctf.star").read_text().partition("data_micrographs")
    lines = [line.split() for line in rows.splitlines() if line.strip().startswith("Micrographs/")]
    labels = ("MicrographName", "OpticsGroup", "DefocusU", "DefocusV", "DefocusAngle")
    table = ["data_micrographs", "", "loop_", *[f"_rln{label} #{n}" for n, label in enumerate(labels, 1)]]
    table += [f"{name} 1 {10000 + 10 * n}.5 9800.25 12.5" for n, (name, *_) in enumerate(lines)]
    project = tmp_path / "project"
    shutil.copytree(relion / "Micrographs", project / "Micrographs", symlinks=True)
    (project / "micrographs_ctf.star").write_text(head + "\n".join(table) + "\n\n")
    session = init(tmp_path, str(project / "micrographs_ctf.star"))
    command(session, "snakemake", "--cores", "2")
    results = session / "results/spa/my_session"
    exported = (results / "relion/micrographs_ctf.star").read_text()
    assert "10010.5" in exported
    assert "9800.25" in exported
    # They are kept as they came: nothing was fitted, so nothing is shown or judged.
    assert "rlnCtfImage" not in exported
    assert not (results / "ctf").exists()
    assert "doubtful" not in (results / "summary.txt").read_text()
    assert planned(session) == {}


def test_a_tiff_is_the_flipped_mrc(tmp_path):
    """RELION reads TIFF y-flipped: picks of a flipped TIFF are those of the MRC."""
    from workflow.conftest import write_micrograph

    from emflow.io.mrc import read_mrc

    data = tmp_path / "data"
    write_micrograph(data / "one.mrc", seed=3)
    image = np.round(read_mrc(data / "one.mrc"))
    tifffile.imwrite(data / "one.tif", image[::-1].astype(np.uint8))
    (data / "one.mrc").unlink()
    session = init(tmp_path, f"{data}/*.tif", "--pixel-size", "4")
    command(session, "snakemake", "--cores", "2", "--until", "pick")
    written = session / "results/spa/my_session/batch00001/micrographs/one.tif.mrc"
    np.testing.assert_array_equal(read_mrc(written), image)


@pytest.mark.slow
def test_run_scans_and_passes_flags_on(session):
    done = command(session, "emflow", "run", "--dry-run", "--cores", "1")
    assert "snakemake --dry-run --cores 1" in done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_failed_write_leaves_nothing_and_the_next_try_succeeds(session):
    """A disk that fills: the job fails whole, and with space again the same command finishes."""
    import resource

    batch = session / "results/spa/my_session/batch00001"
    wanted = [row.checksum for row in read_index(batch / "tiles.tsv", StoreRow)]
    for store in batch.glob("tiles.*.zarr"):
        shutil.rmtree(store)
    (batch / "tiles.tsv").unlink()
    settings = {"pixel-size-angstrom": 3, "outlier-sigmas": 8, "background-sigma-angstrom": 1000}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    files = ("--micrographs", str(batch / "micrographs.tsv"), "--output", str(batch / "tiles.tsv"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond 60 kB: writes fail half-way, as they do on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        done = command(session, "emflow", "build-tiles", *files, *flags, expect=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(batch.glob("tiles.*"))
    command(session, "emflow", "build-tiles", *files, *flags)
    assert [row.checksum for row in read_index(batch / "tiles.tsv", StoreRow)] == wanted


def test_movies_become_star_files(finished_movies):
    """Motion, CTF and picks of each movie, as RELION reads them, in files that agree with each other."""
    results = finished_movies / "results/spa/films"
    relion = results / "relion"
    corrected = read_star(relion / "corrected_micrographs.star")["micrographs"]
    with_ctf = read_star(relion / "micrographs_ctf.star")["micrographs"]
    names = corrected["rlnMicrographName"].tolist()
    assert names == with_ctf["rlnMicrographName"].tolist()
    assert len(names) == 2
    assert (corrected["rlnAccumMotionTotal"].astype(float) > 0).all()
    assert all((relion / spectrum).is_file() for spectrum in corrected["rlnCtfPowerSpectrum"])
    for metadata in corrected["rlnMicrographMetadata"]:
        tables = read_star(relion / metadata)
        assert len(tables["global_shift"]) == 6
        general = tables["general"]
        for label in ("rlnMicrographMovieName", "rlnMicrographGainName"):
            assert (relion / general[label]).exists()
    assert read_star(relion / "autopick.star")["coordinate_files"]["rlnMicrographName"].tolist() == names
    assert len(list((results / "overlays").glob("*.png"))) == 2
    command(finished_movies, "emflow", "check-star", str(relion))
