"""From values as people write them to checked settings, and from what is wrong to one line."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from emflow.config.sections import Config
from emflow.config.session import Session
from emflow.errors import SettingError
from emflow.simulation_ranges import SimulationRanges, changed_ranges


def parse_config(values: Mapping[str, Any], source: str) -> Config:
    """Check the values of a configuration file.

    Raises
    ------
    SettingError
        Naming ``source``, the key, and for an unknown key the one that was probably meant.
    """
    try:
        config = Config.model_validate(dict(values))
    except ValidationError as error:
        raise SettingError(f"{source}: {_first_problem(error, Config)}") from None
    changed_ranges(SimulationRanges(), config.train.ranges, f"{source}: train.ranges.")
    return config


def parse_session(values: Mapping[str, Any], source: str) -> Session:
    """Check one row of sessions.tsv; an empty cell is a missing value.

    Raises
    ------
    SettingError
        Naming ``source``, the column, and what is wrong.
    """
    session = unfinished_session(values, source)
    kinds = [kind for kind in INPUT_KINDS if getattr(session, kind) is not None]
    if len(kinds) != 1:
        raise SettingError(f"{source}: give one of {', '.join(INPUT_KINDS[:-1])} and {INPUT_KINDS[-1]}")
    _check_kind(session, kinds[0], source)
    if session.diameter_angstrom is None and not session.is_tomography:
        raise SettingError(f"{source}: diameter_angstrom: should be given: how long is the particle?")
    for column in _MICROSCOPE[kinds[0]]:
        if getattr(session, column) is None and not session.is_star and not _says(session, column):
            brings = "an mdoc or STAR" if session.tilt_series else "a STAR"
            raise SettingError(f"{source}: {column} is missing: only {brings} file brings its own")
    return session


def unfinished_session(values: Mapping[str, Any], source: str) -> Session:
    """Check each value of a row by itself: what it lacks may yet be found.

    Raises
    ------
    SettingError
        As `parse_session`.
    """
    given = {key: value for key, value in values.items() if value not in ("", None)}
    try:
        return Session.model_validate(given)
    except ValidationError as error:
        raise SettingError(f"{source}: {_first_problem(error, Session)}") from None


INPUT_KINDS = ("micrographs", "movies", "tilt_series", "tomograms")
_OPTICS = ("pixel_size_angstrom", "voltage_kilovolt", "spherical_aberration_millimetre")
_MICROSCOPE = {
    "micrographs": _OPTICS,
    "movies": _OPTICS,
    "tilt_series": _OPTICS,
    "tomograms": ("pixel_size_angstrom",),
}


def _says(session: Session, column: str) -> bool:
    """Whether the session's own files say a constant of the microscope."""
    return (session.tilt_series or "").endswith(".mdoc") and column != "spherical_aberration_millimetre"


_CAMERA = ("gain", "gain_rotation", "gain_flip", "defects")
_OF_MOVIES = (
    "exposure_electrons_per_square_angstrom",
    "total_exposure_electrons_per_square_angstrom",
    "pre_exposure_electrons_per_square_angstrom",
    "frames",
    *_CAMERA,
)
_OF_TILT_SERIES = ("tilt_frames", "tilt_axis_degrees", "tilt_hand")
_OF_TOMOGRAMS = ("even_tomograms", "odd_tomograms", "protein_bright")
# What each kind of input has, of the columns that only some have
_COLUMNS_OF: dict[str, tuple[str, ...]] = {
    "micrographs": (),
    "movies": _OF_MOVIES,
    "tilt_series": (*_OF_TILT_SERIES, *_CAMERA, "exposure_electrons_per_square_angstrom"),
    "tomograms": _OF_TOMOGRAMS,
}


def _check_kind(session: Session, kind: str, source: str) -> None:
    """Refuse a column that is of another kind of input than the session's."""
    for owner in ("movies", "tilt_series", "tomograms"):
        for column in _COLUMNS_OF[owner]:
            stands = getattr(session, column) != Session.model_fields[column].default
            if stands and column not in _COLUMNS_OF[kind]:
                these = kind.replace("_", " ")
                raise SettingError(
                    f"{source}: {column} belongs to {owner.replace('_', ' ')}, and these are {these}"
                )
    if kind == "movies":
        _check_movies(session, session.movies or "", source)


def _check_movies(session: Session, movies: str, source: str) -> None:
    if session.exposure_electrons_per_square_angstrom is None:
        raise SettingError(
            f"{source}: exposure_electrons_per_square_angstrom is missing: how much does a frame get?"
        )
    voltage = session.voltage_kilovolt
    if voltage is not None and not 80 <= voltage <= 400:
        raise SettingError(
            f"{source}: voltage_kilovolt: {voltage:g} kV is no voltage at which damage was measured "
            "(80 to 400); is it in kV?"
        )
    if movies.endswith(".eer") and session.total_exposure_electrons_per_square_angstrom is None:
        raise SettingError(
            f"{source}: total_exposure_electrons_per_square_angstrom is missing: EER frames are grouped by it"
        )


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"]]
    if problem["type"] != "extra_forbidden":
        # A union reports every member, its name at the end of the path: to the user it is one key.
        depth = 2 if path[0] in model.model_fields and len(path) > 1 and model is Config else 1
        said = [
            other["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            for other in error.errors(include_url=False)
            if [str(part) for part in other["loc"]][:depth] == path[:depth]
        ]
        given = problem["input"]
        shown = "" if isinstance(given, dict) else f", not {given!r}"
        return f"{'.'.join(path[:depth])}: should be {' or '.join(said)}{shown}"
    known = list(model.model_fields)
    if len(path) > 1:
        section = model.model_fields[path[0]].annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            known = list(section.model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.4)
    meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"{'.'.join(path)}: unknown key; {meant}"
