"""What a SLURM cluster says of itself, and the snakemake profile made from it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Below this the controller may forget an ended job before snakemake's next look at it (the plugin's bound).
ENOUGH_JOB_AGE_SECONDS = 120


@dataclass(frozen=True)
class Partition:
    """A partition of the cluster, as sinfo describes it."""

    name: str
    default: bool
    up: bool
    time_limit: str
    cpus: str
    memory_mb: str
    gpus: str


@dataclass(frozen=True)
class Site:
    """What a cluster says of itself; ``min_job_age_seconds`` is None when it does not tell."""

    partitions: tuple[Partition, ...]
    min_job_age_seconds: int | None
    accounting: bool


def read_site(sinfo: str, config: str) -> Site:
    """Read `sinfo --format=%P|%a|%l|%c|%m|%G` (a line for each kind of node) and `scontrol show config`."""
    partitions: dict[str, Partition] = {}
    for line in sinfo.splitlines():
        label, state, time_limit, cpus, memory_mb, gres = line.strip().split("|")
        name = label.removesuffix("*")
        # gpu:a100:4(S:0-1),tmp:1T -> gpu:a100:4
        gpus = ", ".join(re.findall(r"\bgpu(?::[^,(\s]+)?", gres))
        earlier = partitions.get(name)
        if earlier is None or (gpus and not earlier.gpus):
            partitions[name] = Partition(
                name, label.endswith("*"), state == "up", time_limit, cpus, memory_mb, gpus
            )
    settings = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", config, flags=re.MULTILINE))
    age = re.match(r"\d+", settings.get("MinJobAge", ""))
    return Site(
        tuple(partitions.values()),
        int(age.group()) if age else None,
        settings.get("AccountingStorageType", "").endswith("/slurmdbd"),
    )


def fill_in(template: str, site: Site) -> str:
    """Return the SLURM profile with the site's partitions and its way of watching jobs, each explained.

    A fact that the site does not tell leaves the template's line as it is, with a note above it.
    """
    usable = [partition for partition in site.partitions if partition.up]
    cpu = _first(
        [p for p in usable if p.default], [p for p in usable if not p.gpus], usable, list(site.partitions)
    )
    gpu = _first([p for p in usable if p.gpus])
    text = template
    if cpu is not None:
        text = _replace(text, "  slurm_partition: cpu", f"  slurm_partition: {cpu.name}")
    if gpu is not None:
        text = _replace(text, "    slurm_partition: gpu", f"    slurm_partition: {gpu.name}")
    else:
        text = _replace(
            text,
            "    slurm_partition: gpu",
            "    # sinfo shows no partition with GPUs: name it here, or set gpu: 0 and a partition without.\n"
            "    slurm_partition: gpu",
        )
    text = _replace(text, "slurm-status-command: squeue", _status_lines(site))
    if site.accounting:
        text = _replace(text, "#  slurm-efficiency-report: true", "slurm-efficiency-report: true")
    return _site_comment(site) + text


def _first(*choices: Sequence[Partition]) -> Partition | None:
    return next((partition for choice in choices for partition in choice), None)


def _replace(text: str, line: str, new: str) -> str:
    """Replace the one line of the template that reads so."""
    before, found, after = text.partition(f"\n{line}\n")
    if not found:
        raise AssertionError(f"the template of the SLURM profile has no line {line!r}")
    return f"{before}\n{new}\n{after}"


def _status_lines(site: Site) -> str:
    """Return the status command of the profile, with the reason for it."""
    age = site.min_job_age_seconds
    if age is None:
        return "# scontrol did not tell MinJobAge: check it.\nslurm-status-command: squeue"
    if age >= ENOUGH_JOB_AGE_SECONDS:
        return f"# MinJobAge is {age} s here: long enough.\nslurm-status-command: squeue"
    if site.accounting:
        return f"# MinJobAge is {age} s here: too short; there is a database.\nslurm-status-command: sacct"
    return (
        f"# MinJobAge is {age} s here and there is no database: ask for {ENOUGH_JOB_AGE_SECONDS} s, or jobs "
        "may end unseen.\nslurm-status-command: squeue"
    )


def _site_comment(site: Site) -> str:
    """Return the partitions as comment lines for the head of the profile."""
    lines = ["# What sinfo said when this was written (the default partition has a star):"]
    for partition in site.partitions:
        label = partition.name + ("*" if partition.default else "")
        gpus = f", {partition.gpus}" if partition.gpus else ""
        down = "" if partition.up else ", down"
        lines.append(
            f"#   {label}: time limit {partition.time_limit}, {partition.cpus} CPUs and "
            f"{partition.memory_mb} MB a node{gpus}{down}"
        )
    return "\n".join(lines) + "\n"
