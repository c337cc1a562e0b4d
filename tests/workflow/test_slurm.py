"""The pipeline on a real SLURM: `cd my_session && snakemake --profile slurm`, as a user types it."""

import numpy as np
import pytest
import torch
from slurm.runs import (
    at_work,
    jobs_of,
    look_after_seconds,
    rule_of,
    run,
    star_files,
    started,
)
from workflow.conftest import init, planned

from emflow.cli.volume_stage import write_volume
from emflow.cli.workers import Workers
from emflow.io.index import StoreRow, VolumeRow, read_index
from emflow.io.volumes import SLAB_SLICES, open_volume
from emflow.reconstruction import ramp_filter, reconstruct_slab
from emflow.tilt_geometry import TiltGeometry

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

GPU_RULES = {"estimate_ctf", "denoise", "pick"}
CPU_RULES = {"import_micrographs", "build_tiles", "export_relion", "summarise"}
BATCHES = 3
RELION = "results/spa/my_session/relion"


def check_places(jobs: list[dict[str, str]]) -> None:
    """Check that every job ended well, GPU rules with one GPU in the GPU partition, the others elsewhere."""
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    for job in jobs:
        on_gpu = rule_of(job) in GPU_RULES
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


SIDE = 64
DEPTH = 5 * SLAB_SLICES


def test_a_tomogram_reconstructed_by_four_jobs_is_the_same(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_PARTITION", "cpu")
    tilts = np.arange(-60.0, 61.0, 10.0)
    still = np.zeros(len(tilts))
    geometry = TiltGeometry(still, tilts, still + 3.0, still, still)
    random = torch.Generator().manual_seed(1)
    images = ramp_filter(torch.randn((len(tilts), SIDE, SIDE), generator=random), geometry)
    row = VolumeRow("series", "ok", depth=DEPTH, height=SIDE, width=SIDE, pixel_size_angstrom=4.0)

    # A function of its own: the jobs do not know this module.
    def slab_of(first: int):
        slab = reconstruct_slab(images, geometry, 4.0, (DEPTH, SIDE, SIDE), first, SLAB_SLICES)
        return first, slab.numpy()[None], None

    stored = {}
    for where in ("threads", "slurm:4"):
        slabs = Workers(where, 1, 1000).in_order(slab_of, range(0, DEPTH, SLAB_SLICES), at_once=1)
        index = tmp_path / where.replace(":", "_") / "tomogram.tsv"
        write_volume("reconstruct", index, row, slabs, channels=["full"])
        stored[where] = read_index(index, VolumeRow)[0]
        assert open_volume(index.parent / stored[where].store)[...].any()

    helpers = [job for job in jobs_of(cluster, tmp_path) if job["JobName"] == "dask-worker"]
    assert len(helpers) == 4
    assert stored["slurm:4"].checksum == stored["threads"].checksum
