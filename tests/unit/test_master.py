"""Who runs snakemake in a folder: told from a record that a killed run leaves behind."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from emflow.errors import SettingError
from emflow.io.master import (
    RECORD,
    SNAKEMAKE_LOCKS,
    become_master,
    living_master,
    read_master,
    this_process,
)


@pytest.fixture(autouse=True)
def session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RECORD.parent.mkdir()


def write(master) -> None:
    RECORD.write_text(json.dumps(asdict(master)))


def other_process(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_the_record_goes_with_its_process():
    other_process(
        "from emflow.io.master import *\n"
        "assert become_master('mine') is None\n"
        "assert read_master().jobname_prefix == 'mine' and living_master() is None"
    )
    assert read_master() is None


def test_a_killed_process_leaves_a_record_that_stops_nobody():
    SNAKEMAKE_LOCKS.mkdir()
    other_process("import os; from emflow.io.master import *; become_master('old'); os._exit(0)")
    left = read_master()
    assert left is not None
    assert left.here
    assert not left.lives()
    assert living_master() is None
    assert become_master("new") == left
    assert not SNAKEMAKE_LOCKS.exists()
    assert read_master() == this_process("new")


def test_locks_of_an_unknown_writer_stay():
    """A run of an older emflow leaves no record: snakemake's lock is then all that there is."""
    SNAKEMAKE_LOCKS.mkdir()
    assert become_master() is None
    assert SNAKEMAKE_LOCKS.exists()


def test_a_living_process_is_waited_for():
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from emflow.io.master import *; become_master(); print(1, flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "1\n"
        assert living_master() == read_master()
        with pytest.raises(SettingError, match=rf"runs here already \(process {other.pid} on "):
            become_master()
        other.communicate("\n")
    assert become_master() is None


def test_another_process_of_the_same_number_is_not_it():
    assert this_process().lives()
    assert not replace(this_process(), started=1e9).lives()
    write(replace(this_process(), started=1e9))
    assert become_master() is not None


def test_another_machine_s_process_cannot_be_judged():
    write(replace(this_process(), host="elsewhere", pid=1234))
    assert living_master() is not None
    with pytest.raises(SettingError, match=r"ssh elsewhere ps -p 1234\), remove \.snakemake/emflow_master"):
        become_master()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": 1}'])
def test_a_record_that_cannot_be_read_is_none(text):
    RECORD.write_text(text)
    assert become_master() is None
