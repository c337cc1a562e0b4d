"""A session whose stores lie in a bucket: its tables and STAR files are here, as ever."""

import pytest
from object_store import BUCKET, keys, s3_server
from slurm.runs import star_files
from workflow.conftest import command, init, planned

from emflow.io.index import StoreRow, read_index


@pytest.mark.slow
def test_a_session_with_its_stores_in_a_bucket(finished, micrographs, tmp_path, edit):
    session = init(tmp_path, f"{micrographs}/*/*.mrc")
    with s3_server() as root:
        edit(session / "config/config.yaml", "root: null", f"root: {root}")
        command(session, "snakemake", "--cores", "2")
        relion = "results/spa/my_session/relion"
        assert star_files(session, relion) == star_files(finished, relion)
        assert list((session / "results").rglob("*.zarr")) == []
        for stage in ("tiles", "denoised"):
            rows = read_index(session / f"results/spa/my_session/batch00001/{stage}.tsv", StoreRow)
            (store,) = {row.store for row in rows}
            assert store.startswith(f"{root}/my_session/batch00001/{stage}.")
            assert any(f"s3://{BUCKET}/{key}".startswith(f"{store}/") for key in keys())
        assert planned(session) == {}

        # Another place is for what is written from now on.
        edit(session / "config/config.yaml", f"root: {root}", "root: null")
        assert planned(session) == {}
        command(session, "emflow", "clean", "--stage", "tiles")
        assert not any("tiles." in key for key in keys())
        assert any("denoised." in key for key in keys())


def test_a_root_that_cannot_be_reached_is_told_before_the_first_job(session, edit):
    edit(session / "config/config.yaml", "root: null", "root: nosuchkind://bucket/stores")
    told = command(session, "snakemake", "--cores", "1", expect=2).stderr
    assert "emflow: stores.root: nosuchkind://bucket/stores: cannot be written: " in told
    assert "Traceback" not in told
