"""SerialEM's mdoc files, also as Tomo5 and PACEtomo write them: read by key, whatever the order."""

import logging
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from emflow.errors import BadInputError

# It warns of every key it does not know.
logging.getLogger("mdocfile").setLevel(logging.ERROR)

_AXIS = re.compile(r"tilt\s*axis\s*angle\s*=\s*([-+]?\d+(?:\.\d*)?)", re.IGNORECASE)
_SECTION = re.compile(r"^\[(ZValue|MontSection|FrameSet)\s*=", re.IGNORECASE)
_DAYS = ("%d-%b-%y", "%d-%b-%Y", "%Y-%b-%d", "%Y-%m-%d", "%d/%m/%Y", "%d-%m-%Y")
_TIMES = ("%H:%M:%S", "%H:%M:%S.%f", "%I:%M:%S %p")


@dataclass(frozen=True)
class MdocSection:
    """One exposure in an mdoc; what it does not state is None or empty."""

    z_value: int
    tilt_degrees: float | None
    time: datetime | None
    exposure_electrons_per_square_angstrom: float | None
    pixel_size_angstrom: float | None
    target_defocus_micrometre: float | None
    rotation_degrees: float | None
    frames_name: str


@dataclass(frozen=True)
class Mdoc:
    """An mdoc file: what it says of the series, and its sections in the order of the file."""

    image_name: str
    image_size: tuple[int, int] | None
    pixel_size_angstrom: float | None
    voltage_kilovolt: float | None
    axis_degrees: float | None
    sections: tuple[MdocSection, ...]


def read_mdoc(path: Path) -> Mdoc:
    """Read a tilt series' mdoc.

    The angle of the tilt axis is that of the title lines, else the sections' RotationAngle less 90 degrees,
    which is how SerialEM relates them.

    Raises
    ------
    BadInputError
        If it cannot be read, has no section, or is that of a montage or of a single exposure's frames.
    """
    from mdocfile.data_models import Mdoc as Parsed
    from pydantic import ValidationError

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror}") from None
    header, sections = _lines(data)
    if not sections:
        raise BadInputError("has no section [ZValue = ...]: it describes no exposure")
    kind = _SECTION.match(sections[0])
    if kind and kind[1].lower() == "frameset":
        raise BadInputError("describes the frames of one exposure; give the mdoc of the tilt series instead")
    if kind and kind[1].lower() == "montsection":
        raise BadInputError("describes a montage and no tilt series")
    try:
        parsed = Parsed.from_lines([*(line for line in header if line.count("=") == 1), *sections])
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise BadInputError(f"holds {key} = {problem['input']!r}, which cannot be read") from None
    about = parsed.global_data
    if about.Montage:
        raise BadInputError("describes a montage and no tilt series")
    axis = next((float(found[1]) for line in header if (found := _AXIS.search(line))), None)
    read = tuple(
        MdocSection(
            z_value=number if section.ZValue is None else section.ZValue,
            tilt_degrees=_finite(section.TiltAngle),
            time=_time(section.DateTime),
            exposure_electrons_per_square_angstrom=_positive(section.ExposureDose),
            pixel_size_angstrom=_positive(section.PixelSpacing),
            target_defocus_micrometre=_finite(section.TargetDefocus),
            rotation_degrees=_finite(section.RotationAngle),
            frames_name=_file_name(section.SubFramePath),
        )
        for number, section in enumerate(parsed.section_data)
    )
    rotation = next((one.rotation_degrees for one in read if one.rotation_degrees is not None), None)
    if axis is None and rotation is not None:
        axis = (rotation - 90 + 180) % 360 - 180
    spacing = next((one.pixel_size_angstrom for one in read if one.pixel_size_angstrom), None)
    voltage = _positive(about.Voltage) or next((_positive(one.Voltage) for one in parsed.section_data), None)
    return Mdoc(
        image_name=_file_name(about.ImageFile),
        image_size=about.ImageSize,
        pixel_size_angstrom=_positive(about.PixelSpacing) or spacing,
        voltage_kilovolt=voltage,
        axis_degrees=axis,
        sections=read,
    )


def glance(path: Path) -> tuple[int, str, list[str]]:
    """Return how many sections an mdoc has, its image file, and its movies, as fast as can be.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    try:
        text = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror}") from None
    sections = len(re.findall(r"^\[ZValue\s*=", text, re.MULTILINE))
    image = re.search(r"^ImageFile\s*=\s*(.+?)\s*$", text, re.MULTILINE)
    movies = re.findall(r"^SubFramePath\s*=\s*(.+?)\s*$", text, re.MULTILINE)
    return sections, _file_name(image[1]) if image else "", [_file_name(movie) for movie in movies]


def _lines(data: bytes) -> tuple[list[str], list[str]]:
    """Return the lines of the header and those of the sections, without the keys that have no value."""
    text = data.decode("utf-8-sig", errors="replace")
    header: list[str] = []
    sections: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if _SECTION.match(line):
            # The parser wants it spelled so
            line = re.sub(r"\s*=\s*", " = ", line, count=1)
            sections.append(line)
        elif line and not line.endswith("="):
            (sections if sections else header).append(line)
    return header, sections


def _file_name(path: object) -> str:
    """Return the last part of a path of whichever system, as the microscope's computer wrote it."""
    return "" if path is None else str(path).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None


def _positive(value: float | str | None) -> float | None:
    number = None if value is None else float(value)
    return number if number is not None and 0 < number < float("inf") else None


def _time(text: str | None) -> datetime | None:
    words = (text or "").split(maxsplit=1)
    if len(words) != 2:
        return None
    for day in _DAYS:
        for time in _TIMES:
            try:
                return datetime.strptime(" ".join(words), f"{day} {time}")
            except ValueError:
                continue
    return None
