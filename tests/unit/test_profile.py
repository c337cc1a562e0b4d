"""`emflow profile` puts a profile where snakemake finds it and never undoes what somebody edited."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emflow.cli.profile import profile, session_profile, user_profile
from emflow.errors import SettingError

SINFO = """#!/bin/sh
echo 'work*|up|1-00:00:00|32|128000|(null)'
echo 'cards|up|1-00:00:00|32|128000|gpu:l40s:4'
"""
SCONTROL = "#!/bin/sh\necho 'MinJobAge = 300 sec'\n"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A user's empty home directory on a machine without SLURM."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def install(home: Path, name: str, script: str) -> None:
    (home / "bin" / name).write_text(script)
    (home / "bin" / name).chmod(stat.S_IRWXU)


def test_user_profile_is_where_snakemake_looks(home):
    profile("local")
    assert user_profile("local") == home / ".config/snakemake/local"
    # In a process of its own: snakemake looks for a shell when it is imported, and this PATH has none.
    ask = "from snakemake.cli import get_profile_dir; print(get_profile_dir('local')[1])"
    answer = subprocess.run(
        [sys.executable, "-c", ask],
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str(user_profile("local") / "config.yaml")


def test_a_cluster_fills_in_its_partitions(home):
    install(home, "sinfo", SINFO)
    install(home, "scontrol", SCONTROL)
    profile()
    written = yaml.safe_load((user_profile("slurm") / "config.yaml").read_text())
    assert written["default-resources"]["slurm_partition"] == "work"
    assert written["set-resources"]["pick"]["slurm_partition"] == "cards"


def test_a_cluster_that_does_not_answer_leaves_the_template(home):
    install(home, "sinfo", "#!/bin/sh\nexit 1\n")
    profile()
    written = yaml.safe_load((user_profile("slurm") / "config.yaml").read_text())
    assert written["default-resources"]["slurm_partition"] == "cpu"


@pytest.mark.usefixtures("home")
def test_an_edited_profile_stays_unless_forced():
    profile()
    file = user_profile("slurm") / "config.yaml"
    shipped = file.read_text()
    profile()  # the same again is no conflict
    file.write_text(shipped + "# mine\n")
    with pytest.raises(SettingError, match="--force"):
        profile()
    assert file.read_text() == shipped + "# mine\n"
    profile(force=True)
    assert file.read_text() == shipped


@pytest.mark.usefixtures("home")
def test_a_session_starts_with_the_users_own_profile():
    shipped = session_profile("slurm")
    profile()
    file = user_profile("slurm") / "config.yaml"
    file.write_text(shipped + "# mine\n")
    assert session_profile("slurm") == shipped + "# mine\n"


@pytest.mark.usefixtures("home")
def test_print_writes_nothing(capsys):
    profile("slurm", print_only=True)
    assert yaml.safe_load(capsys.readouterr().out)["executor"] == "slurm"
    assert not user_profile("slurm").exists()


@pytest.mark.usefixtures("home")
def test_output_names_the_folder(tmp_path):
    profile("ci", output=tmp_path / "there")
    assert (tmp_path / "there/config.yaml").is_file()


@pytest.mark.usefixtures("home")
def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(SettingError, match="ci, local, slurm"):
        profile("slrum")
