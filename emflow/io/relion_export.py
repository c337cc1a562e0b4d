"""Writing a session as a RELION project: links, coordinate files, and the STAR files that name them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emflow.io.files import link, write_text_if_changed
from emflow.io.relion_tables import diameter_comment
from emflow.io.star import Pieces, Table, float_cells, star_rows, star_text, write_star
from emflow.metadata import Ctf, OpticsGroup
from emflow.relion import (
    COORDINATES,
    COORDINATES_LIST,
    CTF_IMAGES,
    LINKS,
    SUFFIX,
    coordinate_path,
    ctf_image_path,
    extraction_box_pixels,
    number_optics_groups,
)

_COORDINATE_COLUMNS = (
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnAutopickFigureOfMerit",
    "rlnClassNumber",
    "rlnAnglePsi",
)


@dataclass(frozen=True)
class ExportedMicrograph:
    """A micrograph and its picks as RELION is given them.

    ``name`` is rlnMicrographName, ``path`` the image that its link leads to; ``x`` and ``y`` (int32) and
    ``figure_of_merit`` (float64) have shape (n,), best first. ``ctf_picture`` is an MRC that shows how the
    CTF fits.
    """

    name: str
    path: Path
    optics: OpticsGroup
    ctf: Ctf | None
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    figure_of_merit: NDArray[np.float64]
    ctf_picture: Path | None = None

    def coordinate_rows(self) -> str:
        """Return the rows of a coordinate file; class and angle keep RELION's JoinStar content.

        A table of pandas' for each micrograph would take most of the time of an export.
        """
        merits = float_cells(self.figure_of_merit, "", _COORDINATE_COLUMNS[2])
        rows = zip(self.x.tolist(), self.y.tolist(), merits, strict=True)
        return "".join(f"{x} {y} {merit} 0 0.000000\n" for x, y, merit in rows)


@dataclass(frozen=True)
class WrittenPicks:
    """What was written of a micrograph's picks: its coordinate file, and its rows in particles.star.

    Both by the SHA-256 of their bytes; the rows stand in particles.star in the order of the micrographs.
    """

    coordinates_sha256: str
    particles_sha256: str
    particles_bytes: int


def write_relion_project(
    folder: Path, micrographs: Sequence[ExportedMicrograph], *, diameter_angstrom: float
) -> dict[str, WrittenPicks]:
    """Write a session as RELION 3.1, 4 and 5 read it; files that would not change are left alone.

    A micrograph without picks stands in the micrographs STAR alone: RELION reads an empty coordinate file
    as a mistake, and a name in autopick.star without a file as none. Where no micrograph has a pick,
    autopick.star and particles.star are not there either.

    Parameters
    ----------
    folder
        The RELION project; links and coordinate files of micrographs that are not given are removed.
    micrographs
        At least one, in the order of the tables, each name once.
    diameter_angstrom
        Of the particle; noted at the top of autopick.star and particles.star.

    Returns
    -------
    dict
        By name, what was written of every micrograph that has picks, in their order.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    for micrograph in micrographs:
        link(folder / micrograph.name, micrograph.path)
        if micrograph.ctf_picture is not None:
            link(folder / ctf_image_path(micrograph.name), micrograph.ctf_picture)
        if len(micrograph.x):
            text = star_text({"": Pieces(_COORDINATE_COLUMNS, [micrograph.coordinate_rows()])})
            write_text_if_changed(folder / coordinate_path(micrograph.name), text)
            digests[micrograph.name] = hashlib.sha256(text.encode()).hexdigest()
    groups = number_optics_groups(micrograph.optics for micrograph in micrographs)
    optics = _optics(groups)
    # Re-extraction asks for the size and pixel size of the particles as they are: those of the micrograph.
    pixel_size = optics["rlnMicrographPixelSize"]
    box = [extraction_box_pixels(diameter_angstrom, value) for value in pixel_size]
    optics_of_particles = optics.assign(
        rlnImagePixelSize=pixel_size, rlnImageSize=box, rlnImageDimensionality=2
    )
    with_ctf = [micrograph for micrograph in micrographs if micrograph.ctf is not None]
    files: dict[str, Mapping[str, Table | Pieces]] = {}
    if len(with_ctf) < len(micrographs):
        files["micrographs.star"] = {
            "optics": optics,
            "micrographs": _micrographs(micrographs, groups, with_ctf=False),
        }
    if with_ctf:
        files["micrographs_ctf.star"] = {
            "optics": optics,
            "micrographs": _micrographs(with_ctf, groups, with_ctf=True),
        }
    written: dict[str, WrittenPicks] = {}
    picked = [micrograph for micrograph in micrographs if len(micrograph.x)]
    if picked:
        names = [micrograph.name for micrograph in picked]
        paths = [coordinate_path(name) for name in names]
        listed = pd.DataFrame({"rlnMicrographName": names, "rlnMicrographCoordinates": paths})
        write_text_if_changed(folder / COORDINATES_LIST, f"{next(reversed(files))}\n")
        files["autopick.star"] = {"coordinate_files": listed}
        # A defocus that only some rows have would be read as 0 in the others.
        every_ctf = len(with_ctf) == len(micrographs)
        particles = _particles(picked, groups, digests, written, with_ctf=every_ctf)
        files["particles.star"] = {"optics": optics_of_particles, "particles": particles}
    for name, tables in files.items():
        comments = (
            [diameter_comment(diameter_angstrom)] if name in ("autopick.star", "particles.star") else []
        )
        write_star(folder / name, tables, comments=comments, if_changed=True)
    for name in ("micrographs.star", "micrographs_ctf.star", "autopick.star", "particles.star"):
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    _remove_strays(folder / LINKS, {folder / micrograph.name for micrograph in micrographs}, "*.mrc")
    pictures = {folder / ctf_image_path(one.name) for one in micrographs if one.ctf_picture is not None}
    _remove_strays(folder / CTF_IMAGES, pictures, "*.ctf")
    kept = {folder / coordinate_path(name) for name in digests}
    _remove_strays(
        folder / COORDINATES, kept | ({folder / COORDINATES_LIST} if picked else set()), f"*{SUFFIX}"
    )
    return written


def _remove_strays(folder: Path, keep: set[Path], pattern: str) -> None:
    """Remove links and coordinate files of micrographs that are gone, and folders that this empties."""
    if not folder.is_dir():
        return
    for path in folder.rglob(pattern):
        if path not in keep and (path.is_symlink() or pattern.endswith(SUFFIX)):
            path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def _optics(groups: Mapping[OpticsGroup, tuple[int, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rlnOpticsGroupName": [name for _, name in groups.values()],
            "rlnOpticsGroup": [number for number, _ in groups.values()],
            "rlnMicrographPixelSize": [float(group.pixel_size_angstrom) for group in groups],
            "rlnVoltage": [float(group.voltage_kilovolt) for group in groups],
            "rlnSphericalAberration": [float(group.spherical_aberration_millimetre) for group in groups],
            "rlnAmplitudeContrast": [float(group.amplitude_contrast) for group in groups],
        }
    )


def _micrographs(
    micrographs: Sequence[ExportedMicrograph],
    groups: Mapping[OpticsGroup, tuple[int, str]],
    *,
    with_ctf: bool,
) -> pd.DataFrame:
    columns: dict[str, object] = {
        "rlnMicrographName": [micrograph.name for micrograph in micrographs],
        "rlnOpticsGroup": [groups[micrograph.optics][0] for micrograph in micrographs],
    }
    # Half a column would be filled up with blanks.
    if with_ctf and all(micrograph.ctf_picture is not None for micrograph in micrographs):
        columns["rlnCtfImage"] = [f"{ctf_image_path(micrograph.name)}:mrc" for micrograph in micrographs]
    return pd.DataFrame(columns | (_ctf_columns(micrographs) if with_ctf else {}))


def _ctf_columns(micrographs: Sequence[ExportedMicrograph]) -> dict[str, NDArray[np.float64]]:
    ctfs = [micrograph.ctf for micrograph in micrographs if micrograph.ctf is not None]
    columns = {
        "rlnDefocusU": [ctf.defocus_u_angstrom for ctf in ctfs],
        "rlnDefocusV": [ctf.defocus_v_angstrom for ctf in ctfs],
        "rlnCtfAstigmatism": [abs(ctf.defocus_u_angstrom - ctf.defocus_v_angstrom) for ctf in ctfs],
        "rlnDefocusAngle": [ctf.defocus_angle_degrees for ctf in ctfs],
        "rlnPhaseShift": [ctf.phase_shift_degrees for ctf in ctfs],
    }
    merits = [ctf.figure_of_merit for ctf in ctfs if ctf.figure_of_merit is not None]
    resolutions = [ctf.max_resolution_angstrom for ctf in ctfs if ctf.max_resolution_angstrom is not None]
    # Half a column would be filled up with zeros, the best of resolutions.
    if len(merits) == len(resolutions) == len(ctfs):
        columns |= {"rlnCtfFigureOfMerit": merits, "rlnCtfMaxResolution": resolutions}
    return {label: np.array(values, dtype=np.float64) for label, values in columns.items()}


def _particles(
    micrographs: Sequence[ExportedMicrograph],
    groups: Mapping[OpticsGroup, tuple[int, str]],
    coordinates_sha256: Mapping[str, str],
    written: dict[str, WrittenPicks],
    *,
    with_ctf: bool,
) -> Pieces:
    """Return all picks as one table; ``written`` is filled as it is written.

    A row is that of the coordinate file, and what is the same for all picks of the micrograph.
    """
    ctf = _ctf_columns(micrographs) if with_ctf else {}
    if ctf:
        del ctf["rlnCtfAstigmatism"]
        # What RELION's own extraction writes beside the defocus, with the values that change nothing.
        ctf["rlnCtfBfactor"], ctf["rlnCtfScalefactor"] = np.zeros(len(micrographs)), np.ones(len(micrographs))
    of_micrograph = pd.DataFrame(
        {
            "rlnMicrographName": [micrograph.name for micrograph in micrographs],
            "rlnOpticsGroup": [groups[micrograph.optics][0] for micrograph in micrographs],
        }
        | ctf
    )

    def pieces() -> Iterator[str]:
        for micrograph, ending in zip(micrographs, star_rows(of_micrograph, "particles"), strict=True):
            rows = micrograph.coordinate_rows().replace("\n", f" {ending}\n")
            data = rows.encode()
            digest = hashlib.sha256(data).hexdigest()
            written[micrograph.name] = WrittenPicks(coordinates_sha256[micrograph.name], digest, len(data))
            yield rows

    return Pieces((*_COORDINATE_COLUMNS, *of_micrograph.columns), pieces())
