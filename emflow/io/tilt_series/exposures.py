"""What a tilt series is made of, whichever file says so: exposures, sorted by tilt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emflow.errors import BadInputError
from emflow.io.movies import read_movie_header
from emflow.metadata import FEWEST_TILTS, Ctf
from emflow.tilt_geometry import TiltGeometry, Vector

_SPREAD_DEGREES = 2.0


@dataclass(frozen=True)
class Alignment:
    """Where one image looks at the specimen from, in RELION 5's terms (`emflow.tilt_geometry`)."""

    x_tilt_degrees: float
    y_tilt_degrees: float
    z_rot_degrees: float
    x_shift_angstrom: float
    y_shift_angstrom: float


@dataclass(frozen=True)
class Exposure:
    """One exposure of a tilt series; ``reason`` says why it cannot be used, if it cannot.

    ``section`` counts the images of the stack at ``path`` from 0; it is None where the path is the
    exposure's own. ``order`` is by time, from 0; height and width are those of the unbinned image.
    """

    name: str
    path: Path
    section: int | None = None
    is_movie: bool = False
    height: int | None = None
    width: int | None = None
    pixel_size_angstrom: float | None = None
    tilt_degrees: float | None = None
    axis_degrees: float | None = None
    nominal_defocus_angstrom: float | None = None
    order: int = 0
    pre_exposure_electrons_per_square_angstrom: float | None = None
    exposure_electrons_per_square_angstrom: float | None = None
    alignment: Alignment | None = None
    ctf: Ctf | None = None
    reason: str = ""


@dataclass(frozen=True)
class TiltSeries:
    """A tilt series as its files describe it: exposures in the order of their tilt.

    What the files do not say of the microscope is None. ``stated_pixel_size_angstrom`` is what they say of
    the images, whatever was taken in its place. ``alignment_source`` names the kind of alignment that came
    along, if one did; ``notes`` hold what a person should know.
    """

    exposures: tuple[Exposure, ...]
    stated_pixel_size_angstrom: float | None = None
    voltage_kilovolt: float | None = None
    spherical_aberration_millimetre: float | None = None
    amplitude_contrast: float | None = None
    hand: int | None = None
    alignment_source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> list[Exposure]:
        """The exposures that can be used."""
        return [exposure for exposure in self.exposures if not exposure.reason]


def tilt_series(
    exposures: Sequence[Exposure],
    *,
    exposure_per_tilt: float | None = None,
    notes: Iterable[str] = (),
    stated_pixel_size_angstrom: float | None = None,
    voltage_kilovolt: float | None = None,
    alignment_source: str = "",
) -> TiltSeries:
    """Make a tilt series of exposures that know their order in time: pre-exposures, order of tilt, checks.

    Parameters
    ----------
    exposures
        In the order of their file. One without a pre-exposure gets the sum of those before it.
    exposure_per_tilt
        In electrons per square angstrom, in place of what the files say.

    Raises
    ------
    BadInputError
        If too few exposures can be used.
    """
    notes = list(notes)
    if exposure_per_tilt is not None:
        exposures = [
            replace(one, exposure_electrons_per_square_angstrom=exposure_per_tilt) for one in exposures
        ]
    exposures = _distinct(exposures)
    if not any(one.exposure_electrons_per_square_angstrom for one in exposures):
        notes.append("no exposure is known of it: 0 is taken, and nothing can be weighted by damage")
    dosed, before = [], 0.0
    for one in sorted(exposures, key=lambda one: one.order):
        dose = one.exposure_electrons_per_square_angstrom or 0.0
        given = one.pre_exposure_electrons_per_square_angstrom
        dosed.append(
            replace(
                one,
                exposure_electrons_per_square_angstrom=dose,
                pre_exposure_electrons_per_square_angstrom=round(before, 6) if given is None else given,
            )
        )
        before += dose
    checked = [_checked(one) for one in dosed]
    in_order = sorted(checked, key=_by_tilt)
    if [one.name for one in exposures] != [one.name for one in in_order]:
        notes.append("its exposures were not in the order of their tilt, and are sorted")
    series = TiltSeries(
        tuple(in_order),
        stated_pixel_size_angstrom=stated_pixel_size_angstrom,
        voltage_kilovolt=voltage_kilovolt,
        alignment_source=alignment_source,
        notes=tuple(notes),
    )
    check_usable(series)
    return series


def check_usable(series: TiltSeries) -> None:
    """Refuse a series of which too little is left.

    Raises
    ------
    BadInputError
        If fewer than `FEWEST_TILTS` exposures can be used.
    """
    usable = len(series.usable)
    if usable < FEWEST_TILTS:
        first = next((f": {one.name}: {one.reason}" for one in series.exposures if one.reason), "")
        raise BadInputError(
            f"has {usable} usable images of {len(series.exposures)}, and a tomogram takes "
            f"{FEWEST_TILTS}{first}"
        )


def _distinct(exposures: Sequence[Exposure]) -> list[Exposure]:
    """Make names unique, and mark an image that is listed twice."""
    names: set[str] = set()
    places: set[tuple[Path, int | None]] = set()
    distinct = []
    for number, one in enumerate(exposures):
        name = one.name if one.name not in names else f"{one.name}_{number}"
        names.add(name)
        twice = not one.reason and (one.path, one.section) in places
        places.add((one.path, one.section))
        distinct.append(replace(one, name=name, reason="is listed before" if twice else one.reason))
    return distinct


def _by_tilt(exposure: Exposure) -> tuple[float, int]:
    tilt = exposure.tilt_degrees
    return (np.inf if tilt is None else tilt, exposure.order)


def _checked(exposure: Exposure) -> Exposure:
    if exposure.reason:
        return exposure
    tilt = exposure.tilt_degrees
    if tilt is None or not np.isfinite(tilt):
        return replace(exposure, tilt_degrees=None, reason="has no tilt angle")
    if abs(tilt) > 90:
        return replace(exposure, reason=f"has a tilt angle of {tilt:g} degrees")
    return exposure


def with_header(exposure: Exposure) -> Exposure:
    """Return an exposure of its own file with what that file's header says, or with why it is no good."""
    try:
        header = read_movie_header(exposure.path)
    except BadInputError as error:
        return replace(exposure, reason=f"{exposure.path} {error}")
    return replace(
        exposure,
        height=header.height,
        width=header.width,
        is_movie=header.frames > 1,
        pixel_size_angstrom=exposure.pixel_size_angstrom or header.pixel_size_angstrom,
    )


def without_strays(exposures: Sequence[Exposure]) -> list[Exposure]:
    """Mark the exposures whose images have another size than most."""
    sizes = [(one.height, one.width) for one in exposures if not one.reason]
    if not sizes:
        return list(exposures)
    height, width = max(set(sizes), key=sizes.count)
    return [
        one
        if one.reason or (one.height, one.width) == (height, width)
        else replace(one, reason=f"has {one.width} x {one.height} pixels, and most have {width} x {height}")
        for one in exposures
    ]


def alignments(geometry: TiltGeometry) -> list[Alignment]:
    """Return a geometry image by image."""
    columns = (
        geometry.x_tilt_degrees,
        geometry.y_tilt_degrees,
        geometry.z_rot_degrees,
        geometry.x_shift_angstrom,
        geometry.y_shift_angstrom,
    )
    return [Alignment(*(float(value) for value in values)) for values in zip(*columns, strict=True)]


def belongs(nominal_degrees: Sequence[float | None], aligned_degrees: Vector, source: str) -> None:
    """Make sure that an alignment's tilts are these images': the same but for one offset.

    Raises
    ------
    BadInputError
        If they are not.
    """
    known = [i for i, tilt in enumerate(nominal_degrees) if tilt is not None]
    if not known:
        return
    nominal = np.array([nominal_degrees[i] for i in known], dtype=np.float64)
    difference = np.asarray(aligned_degrees)[known] - nominal
    off = np.abs(difference - np.median(difference))
    if off.max() > _SPREAD_DEGREES:
        worst = int(off.argmax())
        raise BadInputError(
            f"and {source} do not belong together: {nominal[worst]:g} degrees here are "
            f"{aligned_degrees[known[worst]]:g} there, in line {known[worst] + 1}"
        )
