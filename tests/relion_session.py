"""A small session written by hand: index tables and picks.star as the stages before the export write them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emflow.cli.export_relion import export_relion
from emflow.io.index import FAILED, OK, MicrographRow, PickRow, write_index
from emflow.io.mrc import write_mrc
from emflow.io.star import write_star
from emflow.metadata import Ctf, OpticsGroup
from emflow.relion import relion_micrograph_name

OPTICS = OpticsGroup("og1", 1.5, 300.0, 2.7, 0.1)
CTF = Ctf(12000.0, 11500.0, 30.0, 0.0, 3.5, 0.2)


@dataclass
class Entry:
    """A micrograph of a batch: its image, and its candidates as (x, y), all of the same figure of merit."""

    name: str
    image: NDArray[np.float32] = field(default_factory=lambda: np.zeros((300, 400), dtype=np.float32))
    xy: list[tuple[float, float]] = field(default_factory=list)
    merits: list[float] | None = None
    ctf: Ctf | None = CTF
    optics: OpticsGroup = OPTICS
    reason: str = ""


def write_batch(folder: Path, entries: list[Entry], *, threshold: float | None = 0.3) -> Path:
    """Write a batch's tables, and its images to ``data`` beside the folder of batches; return picks.tsv."""
    images, picks, tables = [], [], []
    for entry in entries:
        if entry.reason:
            images.append(MicrographRow(entry.name, FAILED, entry.reason))
            picks.append(PickRow(entry.name, FAILED, entry.reason))
            continue
        path = folder.parent.parent / "data" / (entry.name.rsplit(".", 1)[0] + ".mrc")
        write_mrc(path, entry.image, entry.optics.pixel_size_angstrom)
        optics, ctf = entry.optics, entry.ctf
        height, width = entry.image.shape
        row = MicrographRow(
            entry.name,
            OK,
            "",
            str(path),
            height,
            width,
            optics.name,
            optics.pixel_size_angstrom,
            optics.voltage_kilovolt,
            optics.spherical_aberration_millimetre,
            optics.amplitude_contrast,
        )
        if ctf is not None:
            row = MicrographRow(
                *list(vars(row).values())[:11],
                ctf.defocus_u_angstrom,
                ctf.defocus_v_angstrom,
                ctf.defocus_angle_degrees,
                ctf.phase_shift_degrees,
                ctf.max_resolution_angstrom,
                ctf.figure_of_merit,
            )
        images.append(row)
        picks.append(PickRow(entry.name, OK, "", len(entry.xy), threshold))
        merits = entry.merits or [0.9] * len(entry.xy)
        tables.append(
            pd.DataFrame(
                {
                    "rlnMicrographName": [relion_micrograph_name(entry.name)] * len(entry.xy),
                    "rlnCoordinateX": [float(x) for x, _ in entry.xy],
                    "rlnCoordinateY": [float(y) for _, y in entry.xy],
                    "rlnAutopickFigureOfMerit": [float(merit) for merit in merits],
                }
            )
        )
    write_index(folder / "micrographs.tsv", images, MicrographRow)
    write_index(folder / "picks.tsv", picks, PickRow)
    write_star(folder / "picks.star", {"picks": pd.concat(tables, ignore_index=True)} if tables else {})
    return folder / "picks.tsv"


def export(
    session: Path, batches: list[Path], *, diameter_angstrom: float = 60.0, **settings: object
) -> Path:
    """Export a session and return its RELION project. The default diameter makes a box of 60 pixels."""
    output = session / "relion"
    arguments = {"output": output, "index": output / "export.tsv", "diameter_angstrom": diameter_angstrom}
    export_relion(batches=batches, **arguments, **settings)  # type: ignore[arg-type]
    return output
