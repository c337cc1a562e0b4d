"""The shipped profiles: what must never stand in one, and what must."""

import re

import pytest
import yaml

from emflow.resources import pipeline_root

PROFILES = sorted((pipeline_root() / "profiles").glob("*/config.yaml"))


def load(name: str) -> dict:
    return yaml.safe_load((pipeline_root() / "profiles" / name / "config.yaml").read_text())


def keys(node: object) -> list[str]:
    if isinstance(node, dict):
        return [str(key) for key in node] + [key for value in node.values() for key in keys(value)]
    return []


def test_there_are_three_and_none_is_taken_by_itself():
    assert [path.parent.name for path in PROFILES] == ["ci", "local", "slurm"]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_no_profile_turns_on_job_arrays(path):
    """With the SLURM plugin 2.8 arrays fail, or are called finished while they run."""
    assert not [key for key in keys(yaml.safe_load(path.read_text())) if "array" in key]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_snakemake_knows_every_option(path):
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser()
    known = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
    unknown = [key for key in yaml.safe_load(path.read_text()) if key not in known]
    assert not unknown


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_every_option_is_explained(path):
    lines = path.read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        top_level = re.match(r"[a-z]", line)
        assert not top_level or before.startswith("#") or line == "executor: slurm", (
            f"{line}: no reason given"
        )


def test_every_gpu_rule_has_its_partition():
    """A rule that asks for a GPU and is not listed would wait for ever; others have no business there."""
    rules = {}
    for path in (pipeline_root() / "workflow/rules").glob("*.smk"):
        for name, body in re.findall(r"^rule (\w+):\n((?:(?:    .*)?\n)+)", path.read_text(), re.MULTILINE):
            rules[name] = body
        for name, heir in re.findall(r"^use rule (\w+) as (\w+) with:", path.read_text(), re.MULTILINE):
            rules[heir] = rules[name]
    asking = {name for name, body in rules.items() if re.search(r"\bgpu=", body)}
    assert "train_picker_light" in asking
    assert {"estimate_ctf", "denoise", "pick"} <= asking
    assert asking == set(load("slurm")["set-resources"])


def test_more_is_asked_for_with_each_attempt():
    profile = load("slurm")
    assert profile["retries"] >= 1
    for resource in ("mem_mb", "runtime"):
        assert "attempt" in profile["default-resources"][resource]
