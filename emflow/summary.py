"""What a session's export comes to, in numbers and in a page of text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from emflow.metadata import DOUBTFUL_CTF

# Worst offenders are named one by one, up to this many.
_NAMED = 5


@dataclass(frozen=True)
class Summary:
    """The numbers of a session; ``particles_per_micrograph`` are the exported ones."""

    session: str
    micrographs: int
    particles: int
    candidates: int
    diameter_angstrom: float
    threshold: float | None
    failures: Mapping[str, str] = field(default_factory=dict)  # name -> reason
    superseded: int = 0
    particles_per_micrograph: Mapping[str, float] = field(default_factory=dict)  # quantile -> count
    defocus_angstrom: Mapping[str, float] = field(default_factory=dict)  # quantile -> mean of U and V
    ctf_max_resolution_angstrom: Mapping[str, float] = field(default_factory=dict)  # quantile -> angstrom
    doubtful_ctfs: Mapping[str, float] = field(default_factory=dict)  # name -> figure of merit, worst first
    micrographs_without_particles: Sequence[str] = ()
    unfamiliar: Mapping[str, str] = field(default_factory=dict)  # name -> what lies outside the training
    files: Mapping[str, str] = field(default_factory=dict)  # what -> path
    # Quantiles of how far movies moved: "total", "early" (up to 4 electrons per A^2) and "late"
    motion_angstrom: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return what summary.json holds."""
        return asdict(self)


def quantiles(numbers: Sequence[float]) -> dict[str, float]:
    """Return minimum, quartiles, maximum and mean of numbers; empty for none."""
    if not numbers:
        return {}
    names = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
    values = np.percentile(np.asarray(numbers), (0, 25, 50, 75, 100)).round(4)
    return {**dict(zip(names, map(float, values), strict=True)), "mean": round(float(np.mean(numbers)), 2)}


def summary_text(summary: Summary, next_commands: Sequence[str]) -> str:
    """Return the page that a run ends with: results, what was left out and why, how to go on."""
    lines = [f"Session {summary.session}", ""]
    lines.append(f"  {summary.particles} particles from {summary.micrographs} micrographs")
    if summary.threshold is not None:
        lines.append(
            f"  figure of merit at least {summary.threshold:.3g}, out of {summary.candidates} candidates; "
            f"diameter {summary.diameter_angstrom:g} A"
        )
    if summary.particles_per_micrograph:
        per = summary.particles_per_micrograph
        lines.append(
            f"  per micrograph: median {per['median']:g}, quartiles {per['lower_quartile']:g} and "
            f"{per['upper_quartile']:g}, range {per['minimum']:g} to {per['maximum']:g}"
        )
    if summary.motion_angstrom:
        median = {part: values["median"] for part, values in summary.motion_angstrom.items()}
        farthest = summary.motion_angstrom["total"]["maximum"]
        parts = f"{median['early']:.1f} early, {median['late']:.1f} late"
        lines.append(f"  motion: median {median['total']:.1f} A ({parts}), at most {farthest:.1f} A")
    lines += _ctf_lines(summary)
    empty = summary.micrographs_without_particles
    if empty:
        shown = ", ".join(empty[:_NAMED]) + (" ..." if len(empty) > _NAMED else "")
        lines.append(f"  {len(empty)} micrographs without a particle: {shown}")
    lines += _unfamiliar_lines(summary)
    if summary.superseded:
        lines.append(f"  {summary.superseded} older versions of files were superseded by newer ones")
    lines.append("")
    lines += [f"  {what:<10} {path}" for what, path in summary.files.items()]
    lines += ["", "  Go on in RELION:"]
    lines += [f"    {command}" for command in next_commands]
    lines += ["", *_failure_lines(summary.failures, summary.micrographs)]
    return "\n".join(lines) + "\n"


def _unfamiliar_lines(summary: Summary) -> list[str]:
    if not summary.unfamiliar:
        return []
    lines = [
        f"  {len(summary.unfamiliar)} of {summary.micrographs} micrographs are unlike what the picker was "
        "trained on, check their picks:"
    ]
    lines += [f"    {name}: {what}" for name, what in list(summary.unfamiliar.items())[:_NAMED]]
    if len(summary.unfamiliar) > _NAMED:
        lines.append(f"    ... and {len(summary.unfamiliar) - _NAMED} more; see summary.json")
    return lines


def _ctf_lines(summary: Summary) -> list[str]:
    lines = []
    if summary.defocus_angstrom:
        defocus = {name: value / 1e4 for name, value in summary.defocus_angstrom.items()}
        lines.append(
            f"  defocus: median {defocus['median']:.2f} um, quartiles {defocus['lower_quartile']:.2f} and "
            f"{defocus['upper_quartile']:.2f}, range {defocus['minimum']:.2f} to {defocus['maximum']:.2f}"
        )
    if summary.ctf_max_resolution_angstrom:
        finest = summary.ctf_max_resolution_angstrom
        lines.append(
            f"  Thon rings fitted to: median {finest['median']:.1f} A, quartiles "
            f"{finest['lower_quartile']:.1f} and {finest['upper_quartile']:.1f}, range "
            f"{finest['minimum']:.1f} to {finest['maximum']:.1f}"
        )
    if summary.doubtful_ctfs:
        worst = [f"{name} ({merit:.2f})" for name, merit in list(summary.doubtful_ctfs.items())[:_NAMED]]
        more = ", ..." if len(summary.doubtful_ctfs) > _NAMED else ""
        lines.append(
            f"  {len(summary.doubtful_ctfs)} CTFs are doubtful, figure of merit below {DOUBTFUL_CTF:g}: "
            f"{', '.join(worst)}{more}"
        )
    return lines


def _failure_lines(failures: Mapping[str, str], accepted: int) -> list[str]:
    if not failures:
        return [f"  All {accepted} micrographs were used."]
    lines = [f"  {len(failures)} of {accepted + len(failures)} micrographs were left out:"]
    lines += [f"    {name}: {reason}" for name, reason in list(failures.items())[:_NAMED]]
    if len(failures) > _NAMED:
        kinds = Counter(reason.split(": ")[-1] for reason in failures.values())
        lines.append(f"    ... and {len(failures) - _NAMED} more, in {len(kinds)} kinds; see failures.tsv")
    return lines
