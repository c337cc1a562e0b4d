"""The pipeline on a real SLURM: `cd my_session && snakemake --profile slurm`, as a user types it."""

import re
import shutil
from pathlib import Path

import pytest
from slurm.runs import (
    Job,
    at_work,
    jobs_of,
    look_after_seconds,
    rule_of,
    run,
    star_files,
    started,
)
from workflow.conftest import command, init, planned

from emflow.io.index import StoreRow, VolumeRow, read_index
from emflow.io.volumes import SLAB_SLICES, open_volume

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

GPU_RULES = {"estimate_ctf", "denoise", "pick"}
CPU_RULES = {"import_micrographs", "build_tiles", "export_relion", "summarise"}
TILT_GPU_RULES = {
    "correct_tilts",
    "estimate_tilt_ctf",
    "reconstruct",
    "denoise_tomogram",
    "segment",
}
TILT_CPU_RULES = {
    "import_tilt_series",
    "align_tilts",
    "pick_tomogram",
    "export_tomograms",
    "summarise_tomograms",
}
BATCHES = 3
# Of a tomogram of one slab; a voxel is 10 angstrom.
THIN_ANGSTROM = 10.0 * SLAB_SLICES
RELION = "results/spa/my_session/relion"


def check_places(jobs: list[Job]) -> None:
    """Check that every job ended well, GPU rules with one GPU in the GPU partition, the others elsewhere."""
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    for job in jobs:
        on_gpu = rule_of(job) in GPU_RULES | TILT_GPU_RULES
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), job
        assert job["NodeList"].startswith("gpu" if on_gpu else "cpu"), job
        assert job.get("TresPerJob") == ("gres:gpu:1" if on_gpu else None), job
        assert "ArrayJobId" not in job


def test_a_session_on_slurm_gives_what_it_gives_here(cluster, finished, micrographs, tmp_path):
    session = init(tmp_path, f"{micrographs}/*/*.mrc", "--batch-size", "2")
    look_after_seconds(session / "slurm/config.yaml")

    run("cd my_session && snakemake --profile slurm", tmp_path)

    jobs = jobs_of(cluster, session)
    assert {rule_of(job) for job in jobs} == GPU_RULES | CPU_RULES
    # A job per batch and stage, and the session's export and summary.
    assert len(jobs) == 5 * BATCHES + 2
    check_places(jobs)
    assert star_files(session) == star_files(finished)
    assert len([name for name in star_files(session) if name.endswith("picks.star")]) == BATCHES


def init_tilts(parent: Path, data: Path) -> Path:
    """Make a session folder of one small tilt series, of a tomogram of 64 x 64 x 32 voxels."""
    command(parent, "emflow", "init", "tilts", "--tilt-series", f"{data}/*.mdoc", "--cs", "2.7")
    set_key(parent / "tilts", "thickness_angstrom", THIN_ANGSTROM)
    set_key(parent / "tilts", "axes", "z")
    return parent / "tilts"


def set_key(session: Path, key: str, value: object) -> None:
    """Give a key that stands once in the session's config another value."""
    config = session / "config/config.yaml"
    text, edits = re.subn(rf"(?<=^  {key}: )\S+", str(value), config.read_text(), flags=re.MULTILINE)
    assert edits == 1
    config.write_text(text)


@pytest.fixture(scope="module")
def tilt_series(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tilt_series")
    flags = ("--shape", "64", "64", "--thickness", "200", "250", "--tomograms", "1", "--seed", "5")
    command(folder, "emflow", "simulate-tomograms", "--output", str(folder), *flags)
    return folder


@pytest.fixture(scope="module")
def tilts_here(tmp_path_factory, tilt_series) -> Path:
    """A session of one tilt series that has been run on this machine; copy it before you touch it."""
    session = init_tilts(tmp_path_factory.mktemp("tilts_here"), tilt_series)
    command(session, "snakemake", "--cores", "2", "--quiet", "all")
    return session


def test_a_tilt_series_on_slurm_gives_what_it_gives_here(cluster, tilts_here, tilt_series, tmp_path):
    session = init_tilts(tmp_path, tilt_series)
    look_after_seconds(session / "slurm/config.yaml")

    run("cd tilts && snakemake --profile slurm", tmp_path)

    jobs = jobs_of(cluster, session)
    assert sorted(rule_of(job) for job in jobs) == sorted(TILT_GPU_RULES | TILT_CPU_RULES)
    check_places(jobs)
    stars = star_files(session, "results/tomo/tilts")
    assert stars == star_files(tilts_here, "results/tomo/tilts")
    assert {"TS_01/picks.star", "relion/tilt_series/TS_01.star", "relion/particles.star"} <= {*stars}


def test_a_lost_node_and_a_killed_master_cost_nothing(cluster, finished, micrographs, tmp_path):
    """One batch, so that each fault meets the only job there is; results never depend on the batch."""
    session = init(tmp_path, f"{micrographs}/*/*.mrc")
    look_after_seconds(session / "slurm/config.yaml")
    with started(session, tmp_path / "first.log") as master:
        lost = at_work(cluster, session, "build_tiles")
        cluster.kill(lost["NodeList"])
        orphan = at_work(cluster, session, "pick")
        master.kill()
    states = {job["JobId"]: job["JobState"] for job in jobs_of(cluster, session)}
    assert states[lost["JobId"]] == "NODE_FAIL"
    assert states[orphan["JobId"]] == "SUSPENDED"

    dry = run("cd my_session && snakemake --profile slurm --dry-run", tmp_path)
    assert "live in the queue: " in dry
    assert f"{orphan['JobId']} (rule_pick" in dry
    assert "a start would cancel them" in dry
    told = run("cd my_session && snakemake --profile slurm", tmp_path)

    assert f"an earlier run was killed (process {master.pid} on " in told
    assert f"{orphan['JobId']} (rule_pick" in told
    jobs = jobs_of(cluster, session)
    cluster.revive(lost["NodeList"])
    bad = {job["JobId"]: job["JobState"] for job in jobs if job["JobState"] != "COMPLETED"}
    assert bad.pop(lost["JobId"]) == "NODE_FAIL"
    assert bad.pop(orphan["JobId"]) == "CANCELLED"
    assert set(bad.values()) <= {"CANCELLED"}  # the other jobs of the killed run, where there were some
    # denoise ran beside pick: it may have written its result just before it was cancelled.
    ended_well = {rule_of(job) for job in jobs if job["JobState"] == "COMPLETED"}
    assert ended_well | {"denoise"} == GPU_RULES | CPU_RULES
    assert star_files(session, RELION) == star_files(finished, RELION)
    assert planned(session) == {}


def test_the_users_own_profile_serves_a_checkout(cluster, checkout, tmp_path):
    """`emflow profile slurm` asks this cluster, and `--profile slurm` finds what it wrote."""
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    run("emflow profile slurm", checkout, **home)
    profile = tmp_path / "config/snakemake/slurm/config.yaml"
    assert "gpu: time limit 1-00:00:00, 4 CPUs and 16000 MB a node, gpu:toy:2" in profile.read_text()
    look_after_seconds(profile)

    run("snakemake --profile slurm results/spa/by_hand/batch00001/picks.tsv", checkout, **home)

    jobs = jobs_of(cluster, checkout)
    assert {rule_of(job) for job in jobs} == {"import_micrographs", "build_tiles", "pick"}
    check_places(jobs)


def test_a_batch_s_work_in_jobs_of_its_own_is_the_same(cluster, finished, micrographs, tmp_path):
    """`dask: slurm:2` in the profile: the job of a rule submits two more, and they do its work."""
    session = init(tmp_path, f"{micrographs}/*/*.mrc", "--batch-size", "2")
    profile = session / "slurm/config.yaml"
    look_after_seconds(profile)
    text = profile.read_text()
    assert "set-resources:\n" in text
    profile.write_text(
        text.replace("set-resources:\n", "set-resources:\n  build_tiles:\n    dask: slurm:2\n", 1)
    )
    table = "results/spa/my_session/batch00001/tiles.tsv"

    run(f"cd my_session && snakemake --profile slurm {table}", tmp_path)

    helpers = [job for job in jobs_of(cluster, session) if job["JobName"] == "dask-worker"]
    assert len(helpers) == 2
    assert {job["Partition"] for job in helpers} == {"cpu"}
    rows = [read_index(folder / table, StoreRow) for folder in (session, finished)]
    assert [row.checksum for row in rows[0]] == [row.checksum for row in rows[1]]
    assert all(row.store for row in rows[0])


def test_a_tomogram_reconstructed_by_four_jobs_is_the_same(cluster, tilts_here, tmp_path):
    """`dask: slurm:4` in the profile, instead of a GPU: one slab is made by the job, four by others."""
    session = Path(shutil.copytree(tilts_here, tmp_path / "tilts", symlinks=True))
    set_key(session, "thickness_angstrom", 5 * THIN_ANGSTROM)
    profile = session / "slurm/config.yaml"
    look_after_seconds(profile)
    text = profile.read_text()
    assert "  reconstruct: *gpu_rule\n" in text
    asked = "  reconstruct:\n    gpu: 0\n    dask: slurm:4\n"
    profile.write_text(text.replace("  reconstruct: *gpu_rule\n", asked))
    folder = session / "results/tomo/tilts/TS_01"
    here = tmp_path / "here/tomogram.tsv"
    flags = ("--thickness-angstrom", str(5 * THIN_ANGSTROM), "--device", "cpu", "--output", str(here))
    command(session, "emflow", "reconstruct", "--tilts", str(folder / "tilt_ctf.tsv"), *flags)

    run("cd tilts && snakemake --profile slurm results/tomo/tilts/TS_01/tomogram.tsv", tmp_path)

    jobs = jobs_of(cluster, session)
    assert {job["Partition"] for job in jobs} == {"cpu"}
    assert sorted(job["JobName"] == "dask-worker" for job in jobs) == [False] + 4 * [True]
    (there,), (whole,) = (read_index(path, VolumeRow) for path in (folder / "tomogram.tsv", here))
    assert there.depth == whole.depth == 5 * SLAB_SLICES
    assert there.checksum == whole.checksum
    assert open_volume(folder / there.store)[...].any()
