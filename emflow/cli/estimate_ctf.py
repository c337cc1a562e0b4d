"""Estimate the CTF of every micrograph of one batch from its Thon rings."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Literal

from emflow.cli.ctf_batch import CtfBatch, optics_of
from emflow.cli.progress import say
from emflow.errors import SettingError
from emflow.io.claims import Claim
from emflow.io.ctf_pictures import ctf_folder
from emflow.io.gpus import take_device
from emflow.io.index import MicrographRow, accepted, read_index, write_failures, write_index
from emflow.metadata import DOUBTFUL_CTF

# Worst fits are named one by one, up to this many.
_NAMED = 5
# Spectra that a GPU fits at once; a CPU gains nothing by more than one.
_TOGETHER_ON_GPU = 32


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
        Fit the micrograph; or auto: the spectrum that correct_motion wrote of a movie, where there is one,
        and the micrograph where that fit is doubtful.
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
    batch = CtfBatch(
        output.parent,
        source,
        chosen,
        defocus_range_angstrom=(min_defocus_angstrom, max_defocus_angstrom),
        max_astigmatism_angstrom=max_astigmatism_angstrom,
        phase_shift_range_degrees=(0.0, 180.0) if phase_plate else None,
        resolution_range_angstrom=(coarsest_resolution_angstrom, finest_resolution_angstrom),
    )
    # On a GPU every thread has its part, so that some read and judge while others' spectra are fitted.
    share = -(-len(wanted) // max(1, threads))
    groups = _groups(wanted, 1 if chosen.type == "cpu" else max(1, min(_TOGETHER_ON_GPU, share)))
    finished: dict[str, MicrographRow] = {}
    said = 0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for rows in pool.map(batch.fit, groups):
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


def _groups(rows: Sequence[MicrographRow], together: int) -> list[list[MicrographRow]]:
    """Return runs of micrographs of one microscope and size, at most ``together`` long."""
    groups = []
    for _, same in groupby(rows, key=lambda row: (optics_of(row), row.height, row.width)):
        run = list(same)
        groups += [run[first : first + together] for first in range(0, len(run), together)]
    return groups
