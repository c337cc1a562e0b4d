"""Write a session as RELION reads it, and judge how many micrographs were lost."""

import hashlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from emflow.cli.export_choice import Entry, candidates_of, choose, limit_of
from emflow.cli.progress import say
from emflow.errors import SettingError
from emflow.io.index import (
    OK,
    ExportedRow,
    ExportRow,
    MicrographRow,
    write_failures,
    write_index,
)
from emflow.io.motion import MOTION, MotionRecord, read_motion
from emflow.io.relion_export import ExportedMicrograph, write_relion_project
from emflow.io.relion_motion import CorrectedMicrograph, write_motion_project
from emflow.io.relion_recheck import check_export
from emflow.metadata import Ctf, OpticsGroup, Picks
from emflow.relion import (
    box_inside,
    extraction_box_pixels,
    number_optics_groups,
    relion_micrograph_name,
    whole_pixels,
)


def export_relion(
    *,
    batches: Annotated[list[Path], Parameter(consume_multiple=True)],
    output: Path,
    diameter_angstrom: float,
    index: Path,
    estimated_ctf: bool = False,
    threshold: Literal["auto"] | float = "auto",
    max_failed_fraction: float = 0.5,
) -> None:
    """Write links, micrographs, coordinates and particles of a session as a RELION project.

    Picks whose box of 1.5 particle diameters overhangs the micrograph are left out, as RELION would fill
    up the box with streaks. What is written is checked as emflow check-star does, apart from what an
    earlier export wrote and checked and is the same to the byte.

    Parameters
    ----------
    batches
        The batches' picks.tsv; micrographs.tsv and picks.star lie beside each. Of a micrograph that stands
        in several batches the last counts.
    output
        The RELION project to write.
    diameter_angstrom
        Longest diameter of the particle.
    index
        The table to write last: what RELION is given of each batch.
    estimated_ctf
        Take CTFs from the ctf.tsv beside each picks.tsv; a micrograph that failed there is left out.
    threshold
        Lowest figure of merit, 0 to 1; auto takes the one that the model's card suggests.
    max_failed_fraction
        Exit with status 1 when more of the micrographs than this were left out.
    """
    if threshold != "auto" and not 0 <= threshold <= 1:
        raise SettingError(f"--threshold {threshold}: expected auto or a number from 0 to 1")
    if not 0 < diameter_angstrom < math.inf:
        raise SettingError(f"--diameter-angstrom {diameter_angstrom}: expected a length above 0")
    chosen = choose(batches, estimated_ctf)
    good = {name: entry for name, entry in chosen.items() if entry.picks.status == OK}
    failures = [entry.picks for entry in chosen.values() if entry.picks.status != OK]
    output.mkdir(parents=True, exist_ok=True)
    write_failures(output, failures)
    _judge(len(failures), len(chosen), max_failed_fraction, output)

    overhanging = 0
    micrographs: dict[str, ExportedMicrograph] = {}
    limits: dict[str, float] = {}
    for number, batch in enumerate(batches):
        mine = {name: entry for name, entry in good.items() if entry.batch == number}
        for name, picks in candidates_of(batch, {name: entry.picks for name, entry in mine.items()}):
            limits[name] = limit_of(mine[name].picks, threshold, batch)
            micrographs[name], dropped = _exported(mine[name], picks.above(limits[name]), diameter_angstrom)
            overhanging += dropped
    names = sorted(micrographs)  # whatever the batches: the files do not depend on them
    written = write_relion_project(
        output, [micrographs[name] for name in names], diameter_angstrom=diameter_angstrom
    )
    _write_motion(output, batches, {name: good[name] for name in names}, micrographs)
    say("export-relion", f"written {output}; checking what was written")
    problems = check_export(output, written)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        say("export-relion", f"emflow's own files are refused: {len(problems)} problems; please report this")
        sys.exit(1)

    rows = []
    for number, batch in enumerate(batches):
        mine_names = [name for name in names if good[name].batch == number]
        links = [micrographs[name].name for name in mine_names]
        digests = [written[link].coordinates_sha256 for link in links if link in written]
        digest = hashlib.sha256("".join(digests).encode())
        failed = sum(entry.batch == number and entry.picks.status != OK for entry in chosen.values())
        particles = sum(len(micrographs[name].x) for name in mine_names)
        rows.append(ExportRow(batch.parent.name, len(mine_names), failed, particles, digest.hexdigest()))
    table = []
    for name, entry in chosen.items():
        told = ExportedRow(name, entry.picks.status, entry.picks.reason, batches[entry.batch].parent.name)
        table.append(
            _told(told, entry.image, micrographs[name], limits[name]) if name in micrographs else told
        )
    write_index(output / "micrographs.tsv", table, ExportedRow)
    write_index(index, rows, ExportRow)
    _report(list(micrographs.values()), overhanging, len(failures), output)


def _judge(failed: int, total: int, max_failed_fraction: float, output: Path) -> None:
    reasons = f"the reasons are in {output / 'failures.tsv'}"
    if failed == total:
        say("export-relion", f"no micrograph is left of {total}: {reasons}")
        sys.exit(1)
    if failed > max_failed_fraction * total:
        limit = f"more than export.max_failed_fraction, {max_failed_fraction:g}"
        say("export-relion", f"{failed} of {total} micrographs were left out, {limit}: {reasons}")
        sys.exit(1)


def _exported(entry: Entry, picks: Picks, diameter_angstrom: float) -> tuple[ExportedMicrograph, int]:
    """Return a micrograph as RELION is given it, and how many picks were left out at its edge."""
    row = entry.image
    numbers = (row.pixel_size_angstrom, row.voltage_kilovolt, row.spherical_aberration_millimetre)
    if not row.height or not row.width or any(number is None for number in numbers):
        raise SettingError(f"micrographs.tsv: {row.name} lacks its size or optics; run its batch again")
    pixel_size, voltage, aberration = (float(number or 0) for number in numbers)
    contrast = 0.1 if row.amplitude_contrast is None else row.amplitude_contrast
    optics = OpticsGroup(row.optics_group or "opticsGroup1", pixel_size, voltage, aberration, contrast)
    ctf = None
    if row.defocus_u_angstrom is not None and row.defocus_v_angstrom is not None:
        ctf = Ctf(
            row.defocus_u_angstrom,
            row.defocus_v_angstrom,
            row.defocus_angle_degrees or 0.0,
            row.phase_shift_degrees or 0.0,
            row.ctf_max_resolution_angstrom,
            row.ctf_figure_of_merit,
        )
    x, y = whole_pixels(picks)
    box = extraction_box_pixels(diameter_angstrom, pixel_size)
    keep = box_inside(x, y, box_pixels=box, height=row.height, width=row.width)
    link = relion_micrograph_name(row.name)
    merit = picks.figure_of_merit[keep]
    exported = ExportedMicrograph(
        link, Path(row.path), optics, ctf, x[keep], y[keep], merit, entry.ctf_picture
    )
    return exported, len(picks) - int(keep.sum())


def _told(
    row: ExportedRow, image: MicrographRow, micrograph: ExportedMicrograph, limit: float
) -> ExportedRow:
    """Return the row of the export's own table, with what RELION is given of a micrograph."""
    row = replace(
        row,
        micrograph_name=micrograph.name,
        particles=len(micrograph.x),
        threshold=limit,
        pixel_size_angstrom=micrograph.optics.pixel_size_angstrom,
        motion_total_angstrom=image.motion_total_angstrom,
        motion_early_angstrom=image.motion_early_angstrom,
        motion_late_angstrom=image.motion_late_angstrom,
    )
    ctf = micrograph.ctf
    if ctf is None:
        return row
    return replace(
        row,
        defocus_angstrom=(ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2,
        ctf_max_resolution_angstrom=ctf.max_resolution_angstrom,
        ctf_figure_of_merit=ctf.figure_of_merit if micrograph.ctf_picture is not None else None,
        ctf_defocus_error_angstrom=image.ctf_defocus_error_angstrom,
        ctf_angle_error_degrees=image.ctf_angle_error_degrees,
    )


def _write_motion(
    output: Path, batches: list[Path], chosen: dict[str, Entry], micrographs: dict[str, ExportedMicrograph]
) -> None:
    """Write how movies moved; leave nothing of that where no micrograph was made of a movie."""
    corrected = []
    records: dict[int, dict[str, MotionRecord]] = {}
    for name, entry in chosen.items():
        number, image = entry.batch, entry.image
        if image.motion_total_angstrom is None:
            continue
        if number not in records:
            records[number] = read_motion(batches[number].parent / MOTION)
        if name not in records[number]:
            raise SettingError(f"{batches[number].parent / MOTION}: lacks {name}; run the batch again")
        corrected.append(
            CorrectedMicrograph(
                micrographs[name].name,
                records[number][name],
                micrographs[name].optics,
                image.motion_total_angstrom,
                image.motion_early_angstrom or 0.0,
                image.motion_late_angstrom or 0.0,
            )
        )
    groups = number_optics_groups(micrograph.optics for micrograph in micrographs.values())
    write_motion_project(output, corrected, groups)


def _report(micrographs: list[ExportedMicrograph], overhanging: int, failed: int, output: Path) -> None:
    with_ctf = sum(micrograph.ctf is not None for micrograph in micrographs)
    if 0 < with_ctf < len(micrographs):
        without = len(micrographs) - with_ctf
        say(
            "export-relion",
            f"{without} micrographs have no CTF: micrographs_ctf.star holds the other {with_ctf}",
        )
    empty = sum(not len(micrograph.x) for micrograph in micrographs)
    if empty:
        say("export-relion", f"{empty} micrographs have no particle and are not in autopick.star")
    if overhanging:
        say("export-relion", f"{overhanging} picks were left out: their box overhangs the micrograph")
    particles = sum(len(micrograph.x) for micrograph in micrographs)
    say("export-relion", f"{particles} particles from {len(micrographs)} micrographs: {output}")
    if failed:
        say("export-relion", f"{failed} micrographs were left out, with reasons: {output / 'failures.tsv'}")
    else:
        say("export-relion", "no micrograph was left out")
