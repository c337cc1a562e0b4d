"""Checking a RELION 5 tomography project for what RELION rejects, or takes without a word.

RELION 5 aborts for a column that is missing, and says nothing of a particle in an unknown tomogram, outside
its tomogram, or at "nan": it leaves it out, or puts it somewhere (source and trials: version 5.0).
"""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from emflow.io.star import read_star_text
from emflow.io.star.reading import TextTable
from emflow.relion import reads_as_stack
from emflow.relion_labels import KIND, TEXT, TOMOGRAPHY_NUMBERS

_TOMOGRAM = (
    "rlnTomoName",
    "rlnTomoTiltSeriesStarFile",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnTomoTiltSeriesPixelSize",
    "rlnTomoHand",
    "rlnTomoSizeX",
    "rlnTomoSizeY",
    "rlnTomoSizeZ",
)
_TILT = (
    "rlnMicrographName",
    "rlnMicrographPreExposure",
    # Extraction of plain images goes without, but whatever sorts by it, and the choice of the least tilted
    # image of a subtomogram, reads it unasked: of a missing one memory's chance content.
    "rlnTomoNominalStageTiltAngle",
    "rlnTomoYTilt",
    "rlnTomoZRot",
    "rlnTomoXShiftAngst",
    "rlnTomoYShiftAngst",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
)
_COORDINATES = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
_IMPORTED = "rlnTomoImportParticleFile"

_SET = ("optimisation_set.star", "tomograms.star")

Sizes = dict[str, tuple[float, float, float]]  # half sides in angstrom, by tomogram


def is_relion5(path: Path) -> bool:
    """Whether a STAR file, or a folder, is of a RELION 5 tomography project."""
    if path.is_dir():
        return any((path / name).is_file() for name in (*_SET, "coordinates.star"))
    tables = read_star_text(path)
    if "global" in tables or "optimisation_set" in tables:
        return True
    return any("rlnTomoName" in table.labels for table in tables.values())


def check_relion5(path: Path) -> list[str]:
    """Check a RELION 5 set; return one line per problem, none when RELION can take it.

    Parameters
    ----------
    path
        An optimisation_set.star, a tomograms.star, a particles.star (with a tomograms.star beside it), a
        coordinates.star for RELION's import, or the folder that holds them.
    """
    folder = path if path.is_dir() else path.parent
    tomograms = folder / "tomograms.star"
    particles = folder / "particles.star"
    listed = folder / "coordinates.star"
    if not path.is_dir() and path.name not in (*_SET, "particles.star", "coordinates.star"):
        particles = path
    sizes: Sizes | None = None
    problems: list[str] = []
    if tomograms.is_file():
        sizes = {}
        problems += _tomograms(tomograms, sizes)
    if particles.is_file():
        # Of tomograms that are told themselves, nothing is known that particles could be held against.
        problems += _particles(particles, sizes or None)
    pointer = folder / "optimisation_set.star"
    if pointer.is_file():
        problems += _pointer(pointer)
    # Where tilt series are known, nothing is imported: what lies there then is of an earlier export.
    if listed.is_file() and (path == listed or not tomograms.is_file()):
        problems += _import(listed, particles)
    return problems


def notes_of_relion5(path: Path) -> list[str]:
    """Return what RELION may take, and is seldom meant: a line for each series with defocus 0 in all tilts.

    Parameters
    ----------
    path
        What `check_relion5` was given, and found no problem in.
    """
    tomograms = (path if path.is_dir() else path.parent) / "tomograms.star"
    if not tomograms.is_file():
        return []
    table = read_star_text(tomograms)["global"]
    notes = []
    names, files = (table.column(label) for label in ("rlnTomoName", "rlnTomoTiltSeriesStarFile"))
    for name, file in zip(names, files, strict=True):
        series = _found(tomograms, file)
        if series is not None and _is_in_focus(tilts := read_star_text(series)[name]):
            told = f"0 in all {len(tilts.rows)} tilts, which RELION takes for in focus; right of STEM alone"
            notes.append(f"{series}: data_{name} rlnDefocusU: {told}")
    return notes


def _is_in_focus(tilts: TextTable) -> bool:
    return not any(_number(text) for label in ("rlnDefocusU", "rlnDefocusV") for text in tilts.column(label))


def _pointer(path: Path) -> Iterator[str]:
    table = next(iter(read_star_text(path).values()), None)
    for label in ("rlnTomoParticlesFile", "rlnTomoTomogramsFile"):
        if table is None or label not in table.labels:
            yield f"{path}: {label} is missing"
        elif not table.rows:
            yield f"{path}: data_{table.name} has no row"
        elif _found(path, table.column(label)[0]) is None:
            yield f"{path}: {label}: {table.column(label)[0]}: no such file"


def _import(path: Path, particles: Path) -> Iterator[str]:
    """Check the list of coordinate files that RELION's import reads, the files, and particles.star."""
    table = next(iter(read_star_text(path).values()), None)
    if table is None:
        yield f"{path}: no table of coordinate files"
        return
    missing = _missing(path, table, ("rlnTomoName", _IMPORTED))
    yield from missing
    if missing:
        return
    names = table.column("rlnTomoName")
    yield from _twice(path, table)
    for row, (name, file) in enumerate(zip(names, table.column(_IMPORTED), strict=True), 1):
        found = _found(path, file)
        if found is None:
            yield f"{path}: data_{table.name} {_IMPORTED} row {row}: {file}: no such file"
        elif found.suffix == ".star":  # from any other RELION takes three or six columns of plain text
            yield from _coordinates(found, name)
    kept = read_star_text(particles).get("particles") if particles.is_file() else None
    if kept is not None and "rlnTomoName" in kept.labels:
        known = set(kept.column("rlnTomoName"))
        for name in sorted(known - {*names}):
            yield f"{path}: data_{table.name} rlnTomoName: {name} of {particles.name} is missing"
        for name in sorted({*names} - known):
            yield f"{path}: data_{table.name} rlnTomoName: {name} has no particle in {particles.name}"


def _coordinates(path: Path, name: str) -> Iterator[str]:
    """Check the coordinates of one tomogram."""
    table = next(iter(read_star_text(path).values()), None)
    if table is None or not table.rows:
        yield f"{path}: no particle: RELION's import stops at such a file"
        return
    yield from _missing(path, table, _COORDINATES)
    yield from _numbers(path, table)
    if "rlnTomoName" in table.labels:
        for row, other in enumerate(table.column("rlnTomoName"), 1):
            if other != name:
                yield f"{path}: data_{table.name} rlnTomoName row {row}: {other}, in the list {name}"


def _found(star: Path, name: str) -> Path | None:
    """Return the file that a STAR file names, from whichever folder above it RELION is started in."""
    name = name.rpartition("@")[2]
    places = [Path(name)] if Path(name).is_absolute() else [up / name for up in star.absolute().parents]
    return next((place for place in places if place.is_file()), None)


def _missing(path: Path, table: TextTable, labels: tuple[str, ...]) -> list[str]:
    return [f"{path}: data_{table.name}: {label} is missing" for label in labels if label not in table.labels]


def _twice(path: Path, table: TextTable) -> Iterator[str]:
    for name, count in sorted(Counter(table.column("rlnTomoName")).items()):
        if count > 1:
            yield f"{path}: data_{table.name} rlnTomoName: {name} stands twice"


def _number(text: str) -> float | None:
    """Return a finite number, None where the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(path: Path, table: TextTable) -> Iterator[str]:
    """Yield what is no finite number in columns where RELION reads numbers: it takes "nan", or 0 for text."""
    for label in table.labels:
        if KIND.get(label, TEXT) == TEXT and label not in TOMOGRAPHY_NUMBERS:
            continue
        for row, text in enumerate(table.column(label), 1):
            if _number(text) is None:
                yield f"{path}: data_{table.name} {label} row {row}: {text!r} is no number"


def _tomograms(path: Path, sizes: Sizes) -> Iterator[str]:
    table = read_star_text(path).get("global")
    if table is None:
        yield f"{path}: no table data_global"
        return
    missing = _missing(path, table, _TOMOGRAM)
    yield from missing
    wrong = list(_numbers(path, table))
    yield from wrong
    if not table.rows:
        yield f"{path}: data_global has no row"
    if missing or wrong:
        return
    names = table.column("rlnTomoName")
    yield from _twice(path, table)
    pixels = [float(text) for text in table.column("rlnTomoTiltSeriesPixelSize")]
    sides = [[float(text) for text in table.column(f"rlnTomoSize{axis}")] for axis in "XYZ"]
    for row, name in enumerate(names):
        for axis, column in zip("XYZ", sides, strict=True):
            if column[row] <= 0 or column[row] % 2:
                told = f"{column[row]:g} is not even and above 0"
                yield f"{path}: data_global rlnTomoSize{axis} row {row + 1}: {told}"
        if table.column("rlnTomoHand")[row] and abs(float(table.column("rlnTomoHand")[row])) != 1:
            yield f"{path}: data_global rlnTomoHand row {row + 1}: should be 1 or -1"
        half = [column[row] / 2 * pixels[row] for column in sides]
        sizes[name] = half[0], half[1], half[2]
        series = _found(path, table.column("rlnTomoTiltSeriesStarFile")[row])
        if series is None:
            named = table.column("rlnTomoTiltSeriesStarFile")[row]
            yield f"{path}: data_global rlnTomoTiltSeriesStarFile row {row + 1}: {named}: no such file"
        else:
            yield from _tilts(series, name)


def _tilts(path: Path, name: str) -> Iterator[str]:
    table = read_star_text(path).get(name)
    if table is None:
        yield f"{path}: no table data_{name}, which its tomogram is called"
        return
    missing = _missing(path, table, _TILT)
    yield from missing
    if missing:
        return
    if not table.rows:
        yield f"{path}: data_{name} has no row"
    yield from _numbers(path, table)
    for row, image in enumerate(table.column("rlnMicrographName"), 1):
        if _found(path, image) is None:
            yield f"{path}: data_{name} rlnMicrographName row {row}: {image}: no such file"
        elif "@" in image and not reads_as_stack(image.rpartition("@")[2]):
            told = f"{image}: RELION reads no stack of that name, but plain ones ending in .mrcs, .st or .tif"
            yield f"{path}: data_{name} rlnMicrographName row {row}: {told}"


def _particles(path: Path, sizes: Sizes | None) -> Iterator[str]:
    tables = read_star_text(path)
    table = tables.get("particles")
    if table is None:
        yield f"{path}: no table data_particles"
        return
    missing = _missing(path, table, ("rlnTomoName", *_COORDINATES))
    yield from missing
    for each in tables.values():
        yield from _numbers(path, each)
    if "optics" in tables:
        yield from _groups(path, table, tables["optics"])
    if sizes is not None and not missing:
        yield from _places(path, table, sizes)


def _groups(path: Path, particles: TextTable, optics: TextTable) -> Iterator[str]:
    """Check that every particle's optics group is in the table of optics."""
    missing = _missing(path, optics, ("rlnOpticsGroup", "rlnTomoTiltSeriesPixelSize"))
    missing += _missing(path, particles, ("rlnOpticsGroup",))
    yield from missing
    if missing:
        return
    known = {_number(text) for text in optics.column("rlnOpticsGroup")}
    for row, text in enumerate(particles.column("rlnOpticsGroup"), 1):
        group = _number(text)
        if group is not None and group not in known:
            yield f"{path}: data_particles rlnOpticsGroup row {row}: {text} is no group of data_optics"


def _places(path: Path, table: TextTable, sizes: Sizes) -> Iterator[str]:
    """Check that every particle is in a tomogram that is known."""
    points = zip(*(map(_number, table.column(label)) for label in _COORDINATES), strict=True)
    for row, (name, point) in enumerate(zip(table.column("rlnTomoName"), points, strict=True), 1):
        if name not in sizes:
            told = f"{name} is not in tomograms.star: RELION drops it"
            yield f"{path}: data_particles rlnTomoName row {row}: {told}"
            continue
        for axis, place, half in zip("XYZ", point, sizes[name], strict=True):
            if place is not None and abs(place) > half:
                where = f"{place:g} A is outside {name}, which reaches {half:g} A"
                yield f"{path}: data_particles rlnCenteredCoordinate{axis}Angst row {row}: {where}"
