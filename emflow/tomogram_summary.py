"""What a session's tomograms come to, in numbers and in a page of text."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from emflow.summary import quantiles

# Worst offenders are named one by one, up to this many.
_NAMED = 5


@dataclass(frozen=True)
class SeriesSummary:
    """The numbers of one tilt series, or tomogram, that was used."""

    name: str
    particles: int
    tilts: int | None = None
    tilts_left_out: int | None = None
    alignment_residual_angstrom: float | None = None
    defocus_angstrom: float | None = None
    exposure_electrons_per_square_angstrom: float | None = None
    classes: Mapping[str, float] = field(default_factory=dict)  # share of the voxels
    particles_by_class: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TomogramSummary:
    """The numbers of a session."""

    session: str
    series: Sequence[SeriesSummary]
    failures: Mapping[str, str] = field(default_factory=dict)  # name -> reason
    particles_by_class: Mapping[str, int] = field(default_factory=dict)
    found_by_template: Sequence[str] = ()  # which of the classes; the others are the segmentation's
    tilts_left_out: Mapping[str, str] = field(default_factory=dict)  # image -> reason
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # name -> what is odd about it
    files: Mapping[str, str] = field(default_factory=dict)  # what -> path

    def to_dict(self) -> dict[str, object]:
        """Return what summary.json holds."""
        return asdict(self)


def summary_text(summary: TomogramSummary, next_commands: Sequence[str]) -> str:
    """Return the page that a run ends with: results, what was left out and why, how to go on."""
    series = summary.series
    lines = [f"Session {summary.session}", ""]
    total = sum(one.particles for one in series)
    lines.append(f"  {total} particles from {len(series)} tomograms")
    for name, count in summary.particles_by_class.items():
        picker = "template" if name in summary.found_by_template else "segmentation"
        held = sum(1 for one in series if one.particles_by_class.get(name))
        lines.append(f"    {name}: {count} in {held} tomogram{'s' if held != 1 else ''} ({picker})")
    per = quantiles([one.particles for one in series])
    if per:
        median, low, high = (per[name] for name in ("median", "minimum", "maximum"))
        lines.append(f"  per tomogram: median {median:g}, range {low:g} to {high:g}")
    tilts = [one.tilts for one in series if one.tilts is not None]
    if tilts:
        lost = sum(one.tilts_left_out or 0 for one in series)
        lines.append(f"  {sum(tilts)} tilts used, {lost} left out")
    for what, unit, scale, values in (
        ("alignment residual", "A", 1.0, [one.alignment_residual_angstrom for one in series]),
        ("defocus", "um", 1e-4, [one.defocus_angstrom for one in series]),
        ("exposure in all", "e/A^2", 1.0, [one.exposure_electrons_per_square_angstrom for one in series]),
    ):
        known = quantiles([value * scale for value in values if value is not None])
        if known:
            lines.append(
                f"  {what}: median {known['median']:.2f} {unit}, range {known['minimum']:.2f} to "
                f"{known['maximum']:.2f}"
            )
    shares = [f"{name} {100 * share:.1f} %" for name, share in _mean_shares(series).items() if share >= 5e-4]
    if shares:
        lines.append(f"  segmented: {', '.join(shares)}")
    lines += _notes(summary)
    lines += _left_out(summary)
    lines.append("")
    lines += [f"  {what:<12} {path}" for what, path in summary.files.items()]
    if next_commands:
        lines += ["", "  Go on in RELION 5:"]
        lines += [f"    {command}" for command in next_commands]
    return "\n".join(lines) + "\n"


def _mean_shares(series: Sequence[SeriesSummary]) -> dict[str, float]:
    names = list(dict.fromkeys(name for one in series for name in one.classes if name != "background"))
    return {name: sum(one.classes.get(name, 0.0) for one in series) / len(series) for name in names}


def _notes(summary: TomogramSummary) -> list[str]:
    """Return each note once, with the tilt series that it is of; those of most come first."""
    owners: dict[str, list[str]] = {}
    for name, notes in summary.notes.items():
        for note in notes:
            owners.setdefault(note, []).append(name)
    ordered = sorted(owners.items(), key=lambda item: -len(item[1]))
    lines = ["  notes on tilt series:"] if ordered else []
    for note, names in ordered[:_NAMED]:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"    {', '.join(names[:_NAMED])}{more}: {note}")
    if len(ordered) > _NAMED:
        lines.append(f"    ... and {len(ordered) - _NAMED} more; see summary.json")
    return lines


def _left_out(summary: TomogramSummary) -> list[str]:
    lines = []
    if summary.tilts_left_out:
        lines.append("  tilts left out:")
        named = list(summary.tilts_left_out.items())
        lines += [f"    {name}: {reason}" for name, reason in named[:_NAMED]]
        if len(named) > _NAMED:
            lines.append(f"    ... and {len(named) - _NAMED} more; see summary.json")
    total = len(summary.series) + len(summary.failures)
    if not summary.failures:
        return [*lines, f"  All {total} tomograms were used."]
    lines.append(f"  {len(summary.failures)} of {total} were left out:")
    lines += [f"    {name}: {reason}" for name, reason in list(summary.failures.items())[:_NAMED]]
    if len(summary.failures) > _NAMED:
        lines.append(f"    ... and {len(summary.failures) - _NAMED} more; see failures.tsv")
    return lines
