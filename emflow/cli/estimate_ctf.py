"""Estimate the CTF of every micrograph of one batch from its Thon rings."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from emflow.cli.progress import say
from emflow.errors import BadInputError, SettingError
from emflow.io.claims import Claim
from emflow.io.ctf_pictures import ctf_folder, ctf_picture_path, write_ctf_picture
from emflow.io.gpus import take_device
from emflow.io.index import FAILED, MicrographRow, accepted, read_index, write_failures, write_index
from emflow.io.movie_spectra import movie_spectrum_path, read_movie_spectrum
from emflow.io.mrc import read_mrc
from emflow.metadata import DOUBTFUL_CTF, OpticsGroup

if TYPE_CHECKING:
    import torch

    from emflow.ctf_estimation import CtfEstimate, PowerSpectrum

# Worst fits are named one by one, up to this many.
_NAMED = 5
# Spectra that a GPU fits at once; a CPU gains nothing by more than one.
_TOGETHER_ON_GPU = 32

# Radius, frequency step, and pixel size of an image with such a spectrum: those alike are fitted together.
_Frequencies = tuple[int, float, float]


def estimate_ctf(
    *,
    micrographs: Path,
    output: Path,
    min_defocus_angstrom: float = 3000.0,
    max_defocus_angstrom: float = 50000.0,
    max_astigmatism_angstrom: float = 3000.0,
    coarsest_resolution_angstrom: float = 30.0,
    finest_resolution_angstrom: float = 4.0,
    phase_plate: bool = False,
    replace: bool = False,
    source: Literal["auto", "micrograph"] = "auto",
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Write a batch's table of micrographs again with their CTFs, and a picture of each fit.

    A fit that failed keeps its micrograph, with a low figure of merit. A micrograph that cannot be read is
    left out, and its row and ctf/failures.tsv say why: the batch's own failures.tsv belongs to stages
    that run meanwhile.
    Pictures are 8-bit MRC files, ctf/<micrograph's name>.ctf.mrc beside the table: measured rings on the
    left, fitted ones on the right.

    Parameters
    ----------
    micrographs
        The batch's micrographs.tsv.
    output
        The ctf.tsv to write, with the columns of micrographs.tsv.
    min_defocus_angstrom, max_defocus_angstrom
        Where the mean defocus is looked for, underfocus positive.
    max_astigmatism_angstrom
        Largest difference between defocus U and V.
    coarsest_resolution_angstrom, finest_resolution_angstrom
        Of the rings that are fitted.
    phase_plate
        Estimate a phase shift between 0 and 180 degrees as well.
    replace
        Estimate also where a CTF came with the micrographs.
    source
        Fit the micrograph; or auto: the spectrum that correct_motion wrote of a movie, where there is one.
    device
        auto, cpu or cuda.
    threads
        Micrographs worked on at once.
    """
    if not 0 < min_defocus_angstrom < max_defocus_angstrom:
        raise SettingError(
            f"--min-defocus-angstrom {min_defocus_angstrom:g}: must be positive and below "
            f"--max-defocus-angstrom {max_defocus_angstrom:g}"
        )
    if not 0 < finest_resolution_angstrom < coarsest_resolution_angstrom:
        raise SettingError(
            f"--finest-resolution-angstrom {finest_resolution_angstrom:g}: must be positive and below "
            f"--coarsest-resolution-angstrom {coarsest_resolution_angstrom:g}"
        )
    import torch

    # Many small operations: threads do better on a micrograph each than together on one.
    torch.set_num_threads(1)
    table = read_index(micrographs, MicrographRow)
    good = accepted(table)
    wanted = [row for row in good if replace or row.defocus_u_angstrom is None]
    if len(wanted) < len(good):
        say("estimate_ctf", f"{len(good) - len(wanted)} micrographs came with a CTF and keep it")
    claim = Claim(output)
    chosen = take_device(device)
    fit = partial(
        _fit,
        folder=output.parent,
        source=source,
        device=chosen,
        defocus_range_angstrom=(min_defocus_angstrom, max_defocus_angstrom),
        max_astigmatism_angstrom=max_astigmatism_angstrom,
        phase_shift_range_degrees=(0.0, 180.0) if phase_plate else None,
        resolution_range_angstrom=(coarsest_resolution_angstrom, finest_resolution_angstrom),
    )
    groups = _groups(wanted, 1 if chosen.type == "cpu" else _TOGETHER_ON_GPU)
    finished: dict[str, MicrographRow] = {}
    said = 0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for rows in pool.map(fit, groups):
            finished |= {row.name: row for row in rows}
            if len(finished) * 10 // len(wanted) > said:
                said = len(finished) * 10 // len(wanted)
                say("estimate_ctf", f"{len(finished)}/{len(wanted)} micrographs")
    claim.check()
    _say_doubtful(accepted(finished.values()))
    written = [finished.get(row.name, row) for row in table]
    write_failures(ctf_folder(output.parent), written)
    write_index(output, written, MicrographRow)
    claim.release()


def _say_doubtful(rows: Sequence[MicrographRow]) -> None:
    merits = sorted((row.ctf_figure_of_merit or 0.0, row.name) for row in rows)
    doubtful = [(merit, name) for merit, name in merits if merit < DOUBTFUL_CTF]
    say(
        "estimate_ctf",
        f"{len(rows)} CTFs estimated, {len(doubtful)} of them doubtful (figure of merit < {DOUBTFUL_CTF:g})",
    )
    for merit, name in doubtful[:_NAMED]:
        say("estimate_ctf", f"doubtful: {name}, figure of merit {merit:.3f}")
    if len(doubtful) > _NAMED:
        say("estimate_ctf", f"doubtful: {len(doubtful) - _NAMED} more; see the table")


def _optics(row: MicrographRow) -> OpticsGroup:
    """Return what the fit needs to know of the microscope, or refuse."""
    if (
        row.pixel_size_angstrom is None
        or row.voltage_kilovolt is None
        or row.spherical_aberration_millimetre is None
    ):
        raise SettingError(f"{row.name}: a CTF needs pixel size, voltage and Cs; set them in config.yaml")
    contrast = 0.1 if row.amplitude_contrast is None else row.amplitude_contrast
    return OpticsGroup(
        row.optics_group,
        row.pixel_size_angstrom,
        row.voltage_kilovolt,
        row.spherical_aberration_millimetre,
        contrast,
    )


def _groups(rows: Sequence[MicrographRow], together: int) -> list[list[MicrographRow]]:
    """Return runs of micrographs of one microscope and size, at most ``together`` long."""
    groups = []
    for _, same in groupby(rows, key=lambda row: (_optics(row), row.height, row.width)):
        run = list(same)
        groups += [run[first : first + together] for first in range(0, len(run), together)]
    return groups


def _fit(
    rows: Sequence[MicrographRow],
    *,
    folder: Path,
    source: str,
    device: "torch.device",
    defocus_range_angstrom: tuple[float, float],
    max_astigmatism_angstrom: float,
    phase_shift_range_degrees: tuple[float, float] | None,
    resolution_range_angstrom: tuple[float, float],
) -> list[MicrographRow]:
    """Return the rows of micrographs of one microscope and size with their CTFs; write their pictures."""
    from emflow.ctf_estimation import fit_power_spectra

    optics = _optics(rows[0])
    spectra: dict[_Frequencies, dict[str, PowerSpectrum]] = {}
    finished: dict[str, MicrographRow] = {}
    for row in rows:
        try:
            spectrum, pixel_size = _spectrum(row, optics.pixel_size_angstrom, source, device)
        except (BadInputError, ValueError) as error:
            reason = f"{row.path} {error}"
            finished[row.name] = dataclasses.replace(row, status=FAILED, reason=reason)
            say("estimate_ctf", f"left out: {reason}")
            continue
        alike = (spectrum.radius, spectrum.frequency_step, pixel_size)
        spectra.setdefault(alike, {})[row.name] = spectrum
    known = {row.name: row for row in rows}
    for (_, step, pixel_size), some in spectra.items():
        try:
            estimates = fit_power_spectra(
                list(some.values()),
                pixel_size_angstrom=pixel_size,
                voltage_kilovolt=optics.voltage_kilovolt,
                spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
                amplitude_contrast=optics.amplitude_contrast,
                defocus_range_angstrom=defocus_range_angstrom,
                max_astigmatism_angstrom=max_astigmatism_angstrom,
                phase_shift_range_degrees=phase_shift_range_degrees,
                resolution_range_angstrom=resolution_range_angstrom,
                device=device,
            )
        except ValueError as error:
            raise SettingError(
                f"CTF of optics group {optics.name}: {error}; change section ctf of config.yaml, "
                "or set ctf.enabled: false"
            ) from None
        for name, estimate in zip(some, estimates, strict=True):
            write_ctf_picture(ctf_picture_path(folder, name), estimate.image, step)
            finished[name] = _filled(known[name], estimate)
    return list(finished.values())


def _spectrum(
    row: MicrographRow, pixel_size_angstrom: float, source: str, device: "torch.device"
) -> "tuple[PowerSpectrum, float]":
    """Return what is fitted, and the pixel size of an image that has it."""
    from emflow.ctf_estimation import power_spectrum

    path = movie_spectrum_path(Path(row.path))
    # Beside an imported micrograph a file of that name is somebody else's.
    if source != "micrograph" and row.motion_total_angstrom is not None and path.is_file():
        try:
            return read_movie_spectrum(path)
        except BadInputError as error:
            say("estimate_ctf", f"{path} {error}: the micrograph is fitted instead")
    image = read_mrc(Path(row.path))
    spectrum = power_spectrum(image, pixel_size_angstrom=pixel_size_angstrom, device=device)
    return spectrum, pixel_size_angstrom


def _filled(row: MicrographRow, estimate: "CtfEstimate") -> MicrographRow:
    ctf = estimate.ctf
    return dataclasses.replace(
        row,
        defocus_u_angstrom=round(ctf.defocus_u_angstrom, 2),
        defocus_v_angstrom=round(ctf.defocus_v_angstrom, 2),
        defocus_angle_degrees=round(ctf.defocus_angle_degrees, 3),
        phase_shift_degrees=round(ctf.phase_shift_degrees, 3),
        ctf_max_resolution_angstrom=round(ctf.max_resolution_angstrom or 30.0, 3),
        ctf_figure_of_merit=round(ctf.figure_of_merit or 0.0, 5),
    )
