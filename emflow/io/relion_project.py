"""Checking RELION's STAR files against each other and against the images that they name.

Rules for a table by itself are in `emflow.star_check`; here are those that need more than one file.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from emflow.errors import SettingError
from emflow.io.relion5_check import check_relion5, is_relion5, notes_of_relion5
from emflow.io.relion_images import check_stacks, micrograph_size, positive, project_of
from emflow.io.relion_tables import RelionStar, Unchanged, read_relion_star, stated_diameter
from emflow.relion import (
    COORDINATES,
    COORDINATES_LIST,
    SUFFIX,
    box_inside,
    coordinate_path,
    extraction_box_pixels,
)
from emflow.star_check import Problem

_PER_COLUMN = 10  # problems of one column of one file that are told one by one
_MICROGRAPHS = ("micrographs.star", "micrographs_ctf.star")

Sums: TypeAlias = dict[str, tuple[int, int, int]]  # name -> picks, sum of x, sum of y


def check_star_paths(
    paths: Iterable[Path], *, diameter_angstrom: float | None = None, unchanged: Unchanged | None = None
) -> list[str]:
    """Check STAR files and RELION projects; return one line per problem, none when RELION can take them.

    Parameters
    ----------
    paths
        STAR files, or folders with an export: ``autopick.star`` and the files that belong to it, or
        RELION 5's ``tomograms.star`` or ``coordinates.star`` and theirs.
    diameter_angstrom
        Sets the box that must lie inside the micrograph; otherwise the comment at the top of
        autopick.star or particles.star does, and without it the centre must lie inside.
    unchanged
        What of the one export in ``paths`` is not looked at again; rows are then counted without it.

    Raises
    ------
    SettingError
        If a path does not exist.
    """
    report = _Report()
    tomography: list[str] = []
    for path in paths:
        if not path.exists():
            raise SettingError(f"{path}: no such file or folder")
        if is_relion5(path):
            tomography += check_relion5(path)
            continue
        checker = _Checker(report, diameter_angstrom, unchanged)
        if path.is_dir():
            checker.check_export(path)
        else:
            checker.check_file(path)
    return report.told() + tomography


def notes_on_star_paths(paths: Iterable[Path]) -> list[str]:
    """Return what may be meant, of paths in which `check_star_paths` found no problem; one line each."""
    return [note for path in paths if is_relion5(path) for note in notes_of_relion5(path)]


class _Report:
    """Collects problems, a bounded number of each kind."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count: Counter[tuple[Path, str | None, str]] = Counter()

    def add(self, path: Path, *problems: Problem) -> None:
        for problem in problems:
            key = (path, problem.table, problem.column)
            self._count[key] += 1
            if self._count[key] <= _PER_COLUMN:
                self._lines.append(f"{path}: {problem}")

    def told(self) -> list[str]:
        return self._lines + [
            f"{path}: {Problem(f'{count - _PER_COLUMN} more problems of this column', table, column)}"
            for (path, table, column), count in self._count.items()
            if count > _PER_COLUMN
        ]


class _Checker:
    """Checks the files of one RELION project; every image's header is read once."""

    def __init__(self, report: _Report, diameter_angstrom: float | None, unchanged: Unchanged | None) -> None:
        self._report = report
        self._diameter_angstrom = diameter_angstrom
        self._unchanged: Collection[str] = unchanged.names if unchanged else ()
        self._particles = unchanged.particles if unchanged else None
        self._sizes = dict(unchanged.sizes) if unchanged else {}

    def check_export(self, folder: Path) -> None:
        """Check the files of an export, each by itself and all against each other."""
        names = (*_MICROGRAPHS, "autopick.star", "particles.star", "corrected_micrographs.star")
        stars = {name: self._read(folder / name) for name in names if (folder / name).is_file()}
        every = next((stars[name] for name in _MICROGRAPHS if name in stars), None)
        if every is None:
            self._report.add(folder, Problem(f"neither {' nor '.join(_MICROGRAPHS)} is here"))
            return
        listed = stars.get("autopick.star")
        particles = stars.get("particles.star")
        for one, other in ((listed, "particles.star"), (particles, "autopick.star")):
            if one and other not in stars:
                self._report.add(folder, Problem(f"{one.path.name} is here, {other} is not"))
        for star in stars.values():
            self._agree(every, star)
            self._check_micrographs(star, folder)
            for row, name in enumerate(star.ctf_images, 1):
                if not (folder / name).is_file():
                    problem = Problem(f"{name} does not exist", star.main_table(), "rlnCtfImage", row)
                    self._report.add(star.path, problem)
        sums = self._check_coordinate_files(listed, folder, every) if listed else {}
        known = {*listed.coordinate_files.values(), COORDINATES_LIST} if listed else set()
        for path in sorted((folder / COORDINATES).rglob(f"*{SUFFIX}")):
            # RELION 3.1 goes by the files, RELION 4 and 5 by the list: both must mean the same.
            if path.relative_to(folder).as_posix() not in known:
                self._report.add(path, Problem("autopick.star does not list this file"))
        if particles:
            self._check_boxes(particles, folder, particles.optics)
            if listed:
                self._same_picks(particles, sums)

    def check_file(self, path: Path) -> None:
        """Check one file, and the images and coordinate files that it names."""
        star = self._read(path)
        if star.images:
            self._report.add(path, *check_stacks(star))
        elif star.names:
            project = project_of(path, list(star.names))
            if project is None:
                message = f"{next(iter(star.names))} does not exist, from this folder or one above it"
                self._report.add(path, Problem(message, star.main_table(), "rlnMicrographName"))
                return
            self._check_micrographs(star, project)
            if star.coordinate_files:
                every = _micrographs_of(project)
                if every:
                    self._agree(every, star)
                self._check_coordinate_files(star, project, every)
            self._check_boxes(star, project, star.optics)
        elif star.pieces:
            self._check_lone_coordinates(star)

    def _read(self, path: Path) -> RelionStar:
        star = read_relion_star(path, self._particles if path.name == "particles.star" else None)
        self._report.add(path, *star.problems)
        return star

    def _size(self, path: Path) -> tuple[int, int] | str:
        if path not in self._sizes:
            self._sizes[path] = micrograph_size(path)
        return self._sizes[path]

    def _check_micrographs(self, star: RelionStar, project: Path) -> None:
        for name in star.names:
            size = self._size(project / name)
            if isinstance(size, str):
                self._report.add(star.path, Problem(f"{name} {size}", star.main_table(), "rlnMicrographName"))

    def _check_coordinate_files(self, listed: RelionStar, project: Path, every: RelionStar | None) -> Sums:
        """Check every coordinate file that autopick.star names; return what each holds."""
        sums: Sums = {}
        diameter = stated_diameter(listed.path)
        for row, (name, coordinates) in enumerate(listed.coordinate_files.items(), 1):
            where = ("coordinate_files", "rlnMicrographCoordinates", row)
            if coordinates != coordinate_path(name):
                message = f"{coordinates}, and RELION 3.1 looks for {coordinate_path(name)}"
                self._report.add(listed.path, Problem(message, *where))
            if not (project / coordinates).is_file():
                self._report.add(listed.path, Problem(f"{coordinates} does not exist", *where))
                continue
            if name in self._unchanged:
                continue
            picks = self._read(project / coordinates)
            picks.names = {name: 0}
            self._check_boxes(picks, project, _optics_of(name, every), diameter)
            sums |= _sums(picks)
        return sums

    def _check_lone_coordinates(self, star: RelionStar) -> None:
        """Check a coordinate file given by itself: its place tells the project and the micrograph."""
        path = star.path.resolve()
        for folder in path.parents:
            every = _micrographs_of(folder)
            if every:
                inside = path.relative_to(folder).as_posix()
                name = inside.removeprefix(f"{COORDINATES}/").removesuffix(SUFFIX) + ".mrc"
                if name in every.names:
                    star.names = {name: 0}
                    self._check_boxes(
                        star, folder, _optics_of(name, every), stated_diameter(folder / "autopick.star")
                    )
                return

    def _check_boxes(
        self,
        star: RelionStar,
        project: Path,
        optics: Mapping[str, Mapping[str, str]],
        diameter: float | None = None,
    ) -> None:
        """Refuse centres outside their micrograph, and boxes that overhang it."""
        diameter = self._diameter_angstrom or diameter or stated_diameter(star.path)
        names = list(star.names)
        sizes = [self._size(project / name) for name in names]
        known = np.array([(0, 0) if isinstance(size, str) else size for size in sizes])
        boxes = {
            int(group): extraction_box_pixels(diameter, pixel_size)
            for group, values in optics.items()
            if diameter and group.isdigit() and (pixel_size := positive(values.get("rlnMicrographPixelSize")))
        }
        # A coordinate file has no column of groups: it has the one group of its micrograph.
        has_groups = "rlnOpticsGroup" in star.labels.get(star.main_table(), ())
        rows_before = 0
        for piece in star.pieces:
            height, width = known[piece.micrograph].T
            box = np.full(len(piece.x), 0 if has_groups else max(boxes.values(), default=0))
            if has_groups:
                for group, pixels in boxes.items():
                    box[piece.group == group] = pixels
            with np.errstate(invalid="ignore"):
                inside = (piece.x >= 0) & (piece.y >= 0) & (piece.x < width) & (piece.y < height)
                whole = box_inside(piece.x, piece.y, box_pixels=box, height=height, width=width)
            # What is no number was told already; a micrograph that cannot be read was, too.
            judged = np.isfinite(piece.x) & np.isfinite(piece.y) & (width > 0)
            for row in np.flatnonzero(judged & ~(inside & whole)).tolist():
                where = f"x {piece.x[row]:g}, y {piece.y[row]:g} of {names[piece.micrograph[row]]}"
                what = f"the box of {box[row]} pixels overhangs, RELION fills it up with streaks"
                message = f"{where} ({width[row]} x {height[row]} pixels): "
                message += what if inside[row] else "the centre is outside"
                place = rows_before + row + 1
                self._report.add(star.path, Problem(message, star.main_table(), "rlnCoordinateX", place))
            rows_before += len(piece.x)

    def _agree(self, every: RelionStar, star: RelionStar) -> None:
        """Refuse micrographs, optics and CTFs that differ from those in the table of all micrographs."""
        table = star.main_table()
        for group, values in star.optics.items():
            for label, value in every.optics.get(group, {}).items():
                if values.get(label, value) != value:
                    message = f"{values[label]} for group {group}, and {value} in {every.path.name}"
                    self._report.add(star.path, Problem(message, "optics", label))
        for name in star.names:
            if name not in every.names:
                message = f"{name} is not in {every.path.name}; RELION leaves it out without a word"
                self._report.add(star.path, Problem(message, table, "rlnMicrographName"))
                continue
            (group, *ctf), *_ = every.constants[name]
            for other_group, *other_ctf in star.constants.get(name, ()):
                # autopick.star states neither; micrographs.star of a mixed session states no CTF, nor does
                # corrected_micrographs.star.
                if other_group not in ("", group):
                    message = f"{other_group} for {name}, and {group} in {every.path.name}"
                    self._report.add(star.path, Problem(message, table, "rlnOpticsGroup"))
                stated = any(other_ctf) or table != "micrographs"
                if any(ctf) and other_group and stated and other_ctf != ctf:
                    message = f"another CTF of {name} than in {every.path.name}"
                    self._report.add(star.path, Problem(message, table, "rlnDefocusU"))

    def _same_picks(self, particles: RelionStar, listed: Sums) -> None:
        """Refuse when coordinate files and particles.star hold other picks of a micrograph."""
        theirs = _sums(particles)
        for name in sorted((listed.keys() | theirs.keys()) - {*self._unchanged}):
            if listed.get(name) != theirs.get(name):
                there, here = (sums.get(name, (0,))[0] for sums in (listed, theirs))
                message = f"the {here} picks of {name} are not the {there} of its coordinate file"
                self._report.add(particles.path, Problem(message, "particles"))


def _micrographs_of(project: Path) -> RelionStar | None:
    path = next((project / name for name in _MICROGRAPHS if (project / name).is_file()), None)
    return read_relion_star(path) if path else None


def _optics_of(name: str, every: RelionStar | None) -> dict[str, dict[str, str]]:
    if every is None:
        return {}
    groups = {constants[0] for constants in every.constants.get(name, ())}
    return {group: every.optics[group] for group in groups if group in every.optics}


def _sums(star: RelionStar) -> Sums:
    """Return count and sums of x and y of every micrograph's picks: equal picks have equal sums."""
    totals = np.zeros((3, len(star.names)))
    for piece in star.pieces:
        # A sum of whole numbers is exact in float64; what is no number was told already.
        weights = (None, np.nan_to_num(piece.x), np.nan_to_num(piece.y))
        totals += [np.bincount(piece.micrograph, weight, len(star.names)) for weight in weights]
    counts, x, y = totals.round().astype(np.int64).tolist()
    return {name: (counts[place], x[place], y[place]) for name, place in star.names.items() if counts[place]}
