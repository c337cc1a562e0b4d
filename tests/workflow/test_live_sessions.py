"""Picks while the microscope runs: files come one by one, one cut short, one replaced, one late."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from workflow.conftest import command, init, planned, write_micrograph
from workflow.test_masters import wait_until

from emflow.io.index import ExportedSeriesRow, PickRow, read_index
from emflow.io.inputs import read_inputs

SIDE = 1024


@pytest.fixture
def drops(tmp_path) -> Path:
    """Micrographs that are not there yet: move one into data/ and it arrives."""
    folder = tmp_path / "drops"
    for number in range(8):
        write_micrograph(folder / f"m{number}.mrc", seed=number, shape=(SIDE, SIDE))
    return folder


def live(session: Path, *flags: str) -> "subprocess.Popen[str]":
    emflow = Path(sys.executable).with_name("emflow")
    return subprocess.Popen(
        [emflow, "run", "--live", "--poll", "0.5", "--settle", "2", "--cores", "2", *flags],
        cwd=session,
        stderr=subprocess.PIPE,
        text=True,
    )


def picks(session: Path) -> dict[str, list[str]]:
    """Return, by micrograph, the batches that picked it."""
    found: dict[str, list[str]] = {}
    for table in sorted((session / "results/spa/my_session").glob("batch*/picks.tsv")):
        for row in read_index(table, PickRow):
            if row.status == "ok":
                found.setdefault(row.name, []).append(table.parent.name)
    return found


@pytest.mark.slow
def test_every_good_file_is_picked_once(tmp_path, drops):
    data = tmp_path / "data"
    data.mkdir()

    def arrive(number: int) -> None:
        path = data / f"m{number}.mrc"
        path.write_bytes((drops / path.name).read_bytes())

    arrive(0)
    session = init(tmp_path, f"{data}/*.mrc")
    results = session / "results/spa/my_session"
    with live(session, "--batch-size", "4", "--batch-age", "5", "--until-idle", "0.2") as watcher:
        for number in (1, 2, 3):
            arrive(number)
            time.sleep(0.3)
        with (data / "m4.mrc").open("wb") as growing:  # it comes in two halves, and is not taken in between
            whole = (drops / "m4.mrc").read_bytes()
            growing.write(whole[: len(whole) // 2])
            growing.flush()
            time.sleep(1.5)
            growing.write(whole[len(whole) // 2 :])
        cut = (drops / "m5.mrc").read_bytes()
        (data / "m5.mrc").write_bytes(cut[: len(cut) // 2])  # the copy was broken off
        wait_until(lambda: "m4.mrc" in picks(session), 240)
        write_micrograph(data / "m1.mrc", seed=101, shape=(SIDE, SIDE))  # another exposure under its name
        arrive(6)  # late: too few for a batch
        told = watcher.communicate(timeout=300)[1]
    assert watcher.returncode == 0, told[-4000:]
    assert "nothing new for 0.2 minutes: done" in told

    last = {row.name: row for row in read_inputs(session / "inputs.tsv")}
    assert sorted(last) == [f"m{number}.mrc" for number in range(7)]
    assert json.loads((results / "summary.json").read_text())["micrographs"] == 6
    assert "m5.mrc" in (results / "relion/failures.tsv").read_text()
    picked = picks(session)
    assert sorted(picked) == [f"m{number}.mrc" for number in (0, 1, 2, 3, 4, 6)]
    once = {name: batches for name, batches in picked.items() if name != "m1.mrc"}
    assert all(len(batches) == 1 for batches in once.values()), picked
    assert picked["m1.mrc"][-1] == last["m1.mrc"].batch  # the exposure that replaced it
    star = (results / "relion/micrographs_ctf.star").read_text()
    assert [star.count(name) for name in picked] == [1] * 6

    latencies = [float(s) for s in re.findall(r"(\d+) s at most", told)]
    assert latencies
    print(f"arrival to picks, {SIDE} x {SIDE}, batches of 4: {max(latencies):.0f} s at most")

    # Nothing is left to do, also for those that come without the watch.
    assert planned(session) == {}
    assert "files are new" not in command(session, "snakemake", "-n").stderr


def test_tomograms_are_taken_as_they_come(tmp_path):
    data = tmp_path / "data"
    data.mkdir()

    def arrive(number: int) -> None:
        volume = np.random.default_rng(number).normal(size=(48, 96, 96)).astype(np.float32)
        with mrcfile.new(data / f"TS_{number}.mrc", data=volume) as mrc:
            mrc.set_volume()
            mrc.voxel_size = 10.0

    arrive(1)
    command(tmp_path, "emflow", "init", "volumes", "--tomograms", f"{data}/*.mrc")
    session = tmp_path / "volumes"
    results = session / "results/tomo/volumes"
    with live(session, "--until-idle", "0.2") as watcher:
        wait_until(lambda: (results / "TS_1/picks.tsv").is_file(), 240)
        arrive(2)
        told = watcher.communicate(timeout=300)[1]
    assert watcher.returncode == 0, told[-4000:]
    assert "a tilt series is whole when nothing of it changed for 2 s" in told
    assert re.search(r"1 files: \d+ s from arrival to picks", told)
    exported = read_index(results / "relion/export.tsv", ExportedSeriesRow)
    assert [(row.name, row.status) for row in exported] == [("TS_1", "ok"), ("TS_2", "ok")]
    assert planned(session) == {}


def test_it_stops_when_told_and_goes_on_later(tmp_path, drops):
    session = init(tmp_path, f"{drops}/m0.mrc")
    with live(session) as watcher:
        wait_until(lambda: (session / ".snakemake/emflow_master.json").is_file())
        # One watch is enough.
        told = command(session, "emflow", "run", "--live", expect=2).stderr
        assert "emflow run --live watches here already" in told
        watcher.send_signal(signal.SIGTERM)
        assert "plain snakemake, goes on from here" in watcher.communicate(timeout=120)[1]
    assert watcher.returncode == 0
    with live(session, "--until-idle", "0") as watcher:
        told = watcher.communicate(timeout=240)[1]
    assert watcher.returncode == 0, told[-4000:]
    assert sorted(picks(session)) == ["m0.mrc"]
    assert planned(session) == {}


def test_a_wrong_setting_ends_it(tmp_path, drops, edit):
    session = init(tmp_path, f"{drops}/m0.mrc")
    edit(session / "config/config.yaml", "device: auto", "device: gpu")
    told = command(session, "emflow", "run", "--live", expect=2).stderr
    assert "device: should be" in told
    told = command(session, "emflow", "run", "--live", "--batch-size", "0", expect=2).stderr
    assert "--batch-size 0: should be 1 or more" in told
