"""What RELION expects of names, boxes and optics groups: pure rules that stages share."""

import hashlib
import math
import re
from collections.abc import Iterable
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from emflow.metadata import OpticsGroup, Picks

LINKS = "Micrographs"
"""Folder of the RELION project in which a link leads to each micrograph."""
MOVIES, MOTION, UNWEIGHTED = "Movies", "Motion", "Unweighted"
"""Folders with a link to each movie, its motion as RELION's polishing reads it, a link to its plain sum."""
COORDINATES = "AutoPick"
"""Folder of the RELION project with a coordinate file per micrograph, where an AutoPick job puts them."""
SUFFIX = "_autopick.star"
"""What RELION 3.1 is told to append to a micrograph's name to find its coordinates."""
COORDINATES_LIST = f"{COORDINATES}/coords_suffix{SUFFIX}"
"""What RELION 3.1's Extract job is pointed at: its name holds folder and suffix, its text the micrographs."""
BOX_PER_DIAMETER = 1.5
"""Side of the extraction box in particle diameters: room for what the CTF delocalises and for alignment."""

CTF_IMAGES = "CtfFind"
"""Folder of the RELION project in which a link leads to the picture of each CTF fit."""

# RELION takes '@' for a stack's index, ':' for a format, blanks and quotes for the end of a value.
_UNSAFE = re.compile(r"[^A-Za-z0-9._/+=-]")
# RELION cuts a leading Type/jobNNN/ off a name when it looks for the coordinates.
_JOB = re.compile(r"(?:^|(?<=/))job(?=\d+/)")
# a.tif becomes a.tif.mrc, so a file of that name must become something else.
_TWO_SUFFIXES = re.compile(r"\.(?:tiff?|mrc)\.mrc$", re.IGNORECASE)
_STACK = re.compile(r"\.(?:mrcs|st|tiff?)$", re.IGNORECASE)


def relion_micrograph_name(name: str) -> str:
    """Return rlnMicrographName of a micrograph, relative to the RELION project: the path of its link.

    Parameters
    ----------
    name
        The micrograph's name in its session: the path below the glob's fixed part.

    Returns
    -------
    str
        ``Micrographs/<name>``, with ``.mrc`` appended when the name ends otherwise. Characters that RELION
        does not read in a name, and folders called jobNNN, are replaced, and a digest of the name keeps
        the result unique.
    """
    safe = _safe(name, taken=bool(_TWO_SUFFIXES.search(name)))
    return f"{LINKS}/{safe}" if safe.endswith(".mrc") else f"{LINKS}/{safe}.mrc"


def reads_as_stack(path: str) -> bool:
    """Whether RELION reads images by their number from a file of this name.

    It goes by the suffix, takes ``.mrc`` for a volume, and refuses ``000001@TS_01.mrc`` (RELION 5.0,
    ``src/image.h``).
    """
    return bool(_STACK.search(path)) and not _UNSAFE.search(path)


def stack_suffix(path: str) -> str:
    """Return the suffix of a link under which RELION reads a stack: its own of a TIFF, else that of MRC."""
    suffix = PurePath(path).suffix
    return suffix if suffix.lower() in (".tif", ".tiff") else ".mrcs"


def _safe(name: str, *, taken: bool = False) -> str:
    safe = _JOB.sub("job-", _UNSAFE.sub("_", name))
    if safe != name or taken:
        stem, dot, suffix = safe.rpartition(".")
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        safe = f"{stem}_{digest}{dot}{suffix}" if dot and "/" not in suffix else f"{safe}_{digest}"
    return safe


def movie_name(name: str) -> str:
    """Return rlnMicrographMovieName of a movie, by its name in its session; the suffix tells its format."""
    return f"{MOVIES}/{_safe(name)}"


def motion_path(micrograph_name: str) -> str:
    """Return rlnMicrographMetadata of a micrograph (its rlnMicrographName) that was made of a movie."""
    return f"{MOTION}/{micrograph_name.removeprefix(f'{LINKS}/').removesuffix('.mrc')}.star"


def unweighted_name(micrograph_name: str) -> str:
    """Return rlnMicrographNameNoDW of a micrograph (its rlnMicrographName)."""
    return f"{UNWEIGHTED}/{micrograph_name.removeprefix(f'{LINKS}/')}"


def power_spectrum_name(micrograph_name: str) -> str:
    """Return rlnCtfPowerSpectrum of a micrograph (its rlnMicrographName) that was made of a movie."""
    return f"{MOTION}/{micrograph_name.removeprefix(f'{LINKS}/').removesuffix('.mrc')}_PS.mrc"


def coordinate_path(micrograph_name: str) -> str:
    """Return the path, in the RELION project, of the coordinates of a micrograph (its rlnMicrographName).

    RELION 3.1 forms it of ``--coord_dir``, the micrograph's name without ``.mrc`` and ``--coord_suffix``;
    RELION 4 and 5 read it from autopick.star.
    """
    return f"{COORDINATES}/{micrograph_name.removesuffix('.mrc')}{SUFFIX}"


def ctf_image_path(micrograph_name: str) -> str:
    """Return the path, in the RELION project, of the picture of a micrograph's CTF fit.

    RELION's CtfFind job calls it so; in rlnCtfImage ``:mrc`` follows, as the suffix tells no format.
    """
    return f"{CTF_IMAGES}/{micrograph_name.removesuffix('.mrc')}.ctf"


def extraction_box_pixels(diameter_angstrom: float, pixel_size_angstrom: float) -> int:
    """Return the side of the box, even, in which to extract a particle of this diameter."""
    return 2 * math.ceil(BOX_PER_DIAMETER * diameter_angstrom / pixel_size_angstrom / 2)


def box_inside(
    x: NDArray[np.floating] | NDArray[np.integer],
    y: NDArray[np.floating] | NDArray[np.integer],
    *,
    box_pixels: int | NDArray[np.integer],
    height: int | NDArray[np.integer],
    width: int | NDArray[np.integer],
) -> NDArray[np.bool_]:
    """Tell which boxes lie in the micrograph whole: RELION fills up the others with streaks.

    RELION cuts ``[x - box/2, x + box/2)``, repeats the nearest pixel where that leaves the micrograph, and
    stops where no pixel is inside (src/preprocessing.cpp). ``x`` and ``y`` have shape (n,);
    the sizes are one number or of that shape.
    """
    half = box_pixels // 2
    return (x >= half) & (y >= half) & (x + half <= width) & (y + half <= height)


def whole_pixels(picks: Picks) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return x and y, shape (n,), rounded to whole pixels: RELION would cut the fraction off instead."""
    return np.floor(picks.x + 0.5).astype(np.int32), np.floor(picks.y + 0.5).astype(np.int32)


def number_optics_groups(groups: Iterable[OpticsGroup]) -> dict[OpticsGroup, tuple[int, str]]:
    """Number optics groups from 1 and give each a name that RELION takes, whatever order they come in.

    Returns
    -------
    dict
        Number and name of every distinct group. Names keep letters, digits and hyphens; groups of one name
        and different optics get a number appended.
    """

    def order(group: OpticsGroup) -> tuple[str, float, float, float, float]:
        return (
            group.name,
            group.pixel_size_angstrom,
            group.voltage_kilovolt,
            group.spherical_aberration_millimetre,
            group.amplitude_contrast,
        )

    numbered: dict[OpticsGroup, tuple[int, str]] = {}
    taken: set[str] = set()
    for number, group in enumerate(sorted(set(groups), key=order), 1):
        stem = re.sub(r"[^A-Za-z0-9-]", "-", group.name) or "opticsGroup"
        name, copy = stem, 1
        while name in taken:
            copy += 1
            name = f"{stem}-{copy}"
        taken.add(name)
        numbered[group] = (number, name)
    return numbered
