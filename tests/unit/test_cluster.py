"""A site's answers, as real clusters print them, and the profile that they lead to."""

import pytest
import yaml

from emflow.cluster import Site, fill_in, read_site
from emflow.resources import pipeline_root

TEMPLATE = (pipeline_root() / "profiles/slurm/config.yaml").read_text()

# A default partition with two kinds of node, one down, GPUs with sockets and a second gres behind them.
SINFO = """\
main*|up|2-00:00:00|64|256000|(null)
main*|up|2-00:00:00|128|512000|(null)
old|down|infinite|16|64000|gpu:k80:2
a100|up|1-00:00:00|64|512000|gpu:a100:4(S:0-1),tmp:1T
h100|up|12:00:00|96|1024000|gpu:h100:8(S:0-7)
"""


def config(min_job_age: str, accounting: str) -> str:
    return (
        "Configuration data as of 2026-01-01T00:00:00\n"
        f"AccountingStorageType   = accounting_storage/{accounting}\n"
        f"MinJobAge               = {min_job_age}\n"
    )


def test_partitions_are_read_with_their_gpus():
    site = read_site(SINFO, config("300 sec", "slurmdbd"))
    assert [(p.name, p.default, p.up, p.gpus) for p in site.partitions] == [
        ("main", True, True, ""),
        ("old", False, False, "gpu:k80:2"),
        ("a100", False, True, "gpu:a100:4"),
        ("h100", False, True, "gpu:h100:8"),
    ]
    assert site.min_job_age_seconds == 300
    assert site.accounting


def test_profile_names_the_default_partition_and_the_first_usable_one_with_gpus():
    filled = yaml.safe_load(fill_in(TEMPLATE, read_site(SINFO, config("300 sec", "none"))))
    assert filled["default-resources"]["slurm_partition"] == "main"
    assert {rule["slurm_partition"] for rule in filled["set-resources"].values()} == {"a100"}


@pytest.mark.parametrize(
    ("age", "accounting", "command", "report"),
    [
        ("300 sec", "slurmdbd", "squeue", True),
        ("120 sec", "none", "squeue", False),
        ("60 sec", "slurmdbd", "sacct", True),
        ("60 sec", "none", "squeue", False),
    ],
)
def test_jobs_are_watched_by_what_the_site_has(age, accounting, command, report):
    filled = yaml.safe_load(fill_in(TEMPLATE, read_site(SINFO, config(age, accounting))))
    assert filled["slurm-status-command"] == command
    assert filled.get("slurm-efficiency-report", False) is report


def test_a_site_that_tells_nothing_leaves_the_template_and_says_so():
    text = fill_in(TEMPLATE, Site((), None, accounting=False))
    assert yaml.safe_load(text) == yaml.safe_load(TEMPLATE)
    assert "no partition with GPUs" in text
    assert "did not tell MinJobAge" in text
