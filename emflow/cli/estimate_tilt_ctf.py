"""Estimate the defocus of every image of a tilt series from its Thon rings."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from emflow.cli.progress import say
from emflow.cli.series import (
    geometry_of,
    read_tilts,
    reason_of,
    required,
    write_failed_series,
    write_tilts,
)
from emflow.errors import BadInputError, SettingError
from emflow.io.gpus import take_device
from emflow.io.index import TiltRow
from emflow.io.tilt_images import TiltReader
from emflow.metadata import DOUBTFUL_CTF, OpticsGroup

STAGE = "estimate_tilt_ctf"


def estimate_tilt_ctf(
    *,
    tilts: Path,
    output: Path,
    min_defocus_angstrom: float = 10_000.0,
    max_defocus_angstrom: float = 80_000.0,
    replace: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
) -> None:
    """Write a tilt series' table with a CTF for every image.

    An image whose rings show nothing gets the defocus of the others, and a low figure of merit.

    Parameters
    ----------
    tilts
        The series' alignment.tsv.
    output
        The tilt_ctf.tsv to write.
    min_defocus_angstrom, max_defocus_angstrom
        Where the defocus is looked for, underfocus positive.
    replace
        Estimate also where a CTF came with the tilt series.
    device
        auto, cpu or cuda.
    threads
        Of the CPU.
    """
    import torch

    if not 0 < min_defocus_angstrom < max_defocus_angstrom:
        raise SettingError(
            f"--min-defocus-angstrom {min_defocus_angstrom:g}: must be positive and below "
            f"--max-defocus-angstrom {max_defocus_angstrom:g}"
        )
    torch.set_num_threads(threads)
    table, rows = read_tilts(tilts)
    if not rows:
        write_failed_series(STAGE, output, reason_of(table))
        return
    if not replace and all(row.defocus_u_angstrom is not None for row in rows):
        say(STAGE, f"{len(rows)} images came with a CTF and keep it")
        write_tilts(output, table, {})
        return
    try:
        done = _estimated(rows, (min_defocus_angstrom, max_defocus_angstrom), take_device(device))
    except BadInputError as error:
        write_failed_series(STAGE, output, str(error))
        return
    doubtful = [row for row in done if (row.ctf_figure_of_merit or 0) < DOUBTFUL_CTF]
    worth = f"{len(doubtful)} of them doubtful (figure of merit < {DOUBTFUL_CTF:g})"
    say(STAGE, f"{len(done)} CTFs estimated, {worth}")
    write_tilts(output, table, {row.name: row for row in done})


def _estimated(
    rows: list[TiltRow], defocus_range_angstrom: tuple[float, float], device: object
) -> list[TiltRow]:
    from emflow.tilt_ctf_estimation import TiltedImage, fit_series, series_defocus_angstrom

    first = rows[0]
    optics = OpticsGroup(
        "tilts",
        required(first, "pixel_size_angstrom"),
        required(first, "voltage_kilovolt"),
        required(first, "spherical_aberration_millimetre"),
        required(first, "amplitude_contrast"),
    )
    geometry = geometry_of(rows)
    images = []
    with TiltReader() as reader:
        for number, row in enumerate(rows):
            pixels = reader.read_row(row)
            try:
                images.append(
                    TiltedImage.of(
                        pixels,
                        optics.pixel_size_angstrom,
                        float(geometry.y_tilt_degrees[number]),
                        float(geometry.z_rot_degrees[number]),
                        hand=row.hand or -1,
                        device=str(device),
                    )
                )
            except ValueError as error:
                raise BadInputError(f"{row.name}: {error}") from None
            if (number + 1) % 10 == 0 or number + 1 == len(rows):
                say(STAGE, f"{number + 1}/{len(rows)} images")
    try:
        estimates = fit_series(
            images, optics, defocus_range_angstrom=defocus_range_angstrom, device=str(device)
        )
    except ValueError as error:
        return _without_rings(rows, str(error))
    trusted = [(one.ctf.figure_of_merit or 0.0) >= DOUBTFUL_CTF for one in estimates]
    # A fit that nothing speaks for is worth less than what the microscope was set to.
    if not any(trusted) and any(row.nominal_defocus_angstrom for row in rows):
        return _without_rings(rows, "no fit of rings can be trusted")
    middle = series_defocus_angstrom(estimates)
    done = []
    for row, estimate, good in zip(rows, estimates, trusted, strict=True):
        ctf = estimate.ctf
        done.append(
            dataclasses.replace(
                row,
                defocus_u_angstrom=round(ctf.defocus_u_angstrom if good else middle, 2),
                defocus_v_angstrom=round(ctf.defocus_v_angstrom if good else middle, 2),
                defocus_angle_degrees=round(ctf.defocus_angle_degrees if good else 0.0, 3),
                phase_shift_degrees=0.0,
                ctf_max_resolution_angstrom=round(ctf.max_resolution_angstrom or 40.0, 3),
                ctf_figure_of_merit=round(ctf.figure_of_merit or 0.0, 5),
            )
        )
    return done


def _without_rings(rows: list[TiltRow], reason: str) -> list[TiltRow]:
    """Return rows with their nominal defocus: the pixels are too coarse to show rings, or show none."""
    nominal = [row.nominal_defocus_angstrom for row in rows if row.nominal_defocus_angstrom is not None]
    if not nominal:
        raise BadInputError(
            f"{reason}, and no nominal defocus is known; set tilt_ctf.enabled: false to go without a CTF"
        )
    say(STAGE, f"{reason}: the nominal defocus is taken")
    middle = float(np.median(nominal))
    return [
        dataclasses.replace(
            row,
            defocus_u_angstrom=row.nominal_defocus_angstrom or middle,
            defocus_v_angstrom=row.nominal_defocus_angstrom or middle,
            defocus_angle_degrees=0.0,
            phase_shift_degrees=0.0,
            ctf_figure_of_merit=0.0,
        )
        for row in rows
    ]
