"""Make a session folder: settings, the list of inputs, a Snakefile of a few lines, a cluster profile."""

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emflow.cli.profile import session_profile
from emflow.cli.progress import say
from emflow.cli.scan import report
from emflow.config import Config, Session, parse_session
from emflow.errors import BadInputError, SettingError
from emflow.io.files import write_text
from emflow.io.inputs import INPUTS, candidates, scan
from emflow.io.micrographs import read_header
from emflow.io.mrc import MrcHeader
from emflow.io.settings import CONFIG, SESSIONS, config_text, write_sessions

SNAKEFILE = """\
# Written by emflow init. The pipeline itself lives with the emflow that runs it.
from emflow.resources import snakefile


include: str(snakefile())


# What snakemake makes when it is not told: all that emflow's own Snakefile makes.
rule default:
    default_target: True
    input:
        rules.all.input,
"""
# How many files' headers are looked at to fill in what was not given.
_HEADERS = 20


def init(
    folder: Path,
    *,
    micrographs: str,
    diameter: float,
    pixel_size: float | None = None,
    voltage: float | None = None,
    cs: Annotated[float | None, Parameter(name="--cs")] = None,
    amplitude_contrast: float = 0.1,
    batch_size: int = 200,
    device: str = "auto",
) -> None:
    """Make a session folder for motion-corrected micrographs.

    Parameters
    ----------
    folder
        The folder to make; its name becomes the session's name.
    micrographs
        Glob of MRC or TIFF files in quotes, or a RELION micrographs STAR file.
    diameter
        Longest diameter of the particle in angstrom.
    pixel_size
        Angstrom per pixel of the micrographs; read from the headers or the STAR file when not given.
    voltage
        Acceleration voltage in kV; likewise.
    cs
        Spherical aberration in mm; likewise.
    amplitude_contrast
        Fraction of amplitude contrast.
    batch_size
        Micrographs per job.
    device
        Where networks run: auto, cpu or cuda.
    """
    if (folder / CONFIG).exists() or (folder / SESSIONS).exists():
        raise SettingError(f"{folder}: is a session folder already; edit its config/, or choose another name")
    name = re.sub(r"[^A-Za-z0-9_-]", "_", folder.absolute().name)
    given = {
        "pixel_size_angstrom": pixel_size,
        "voltage_kilovolt": voltage,
        "spherical_aberration_millimetre": cs,
    }
    source = os.path.abspath(micrographs)  # noqa: PTH100 - Path.resolve would follow links inside the glob
    row: dict[str, object] = {
        "session": name,
        "micrographs": source,
        "amplitude_contrast": amplitude_contrast,
        "diameter_angstrom": diameter,
    }
    if source.endswith(".star"):
        _check_star(Path(source), given)
    else:
        row |= _from_headers(source, given)
    session = parse_session(row, "emflow init")
    config = Config.model_validate({"device": device, "batches": {"size": batch_size}})
    (folder / "config").mkdir(parents=True, exist_ok=True)
    result = scan([session], batch_size, folder / INPUTS)
    if not result.added:
        raise SettingError(f"{micrographs}: no file is ready to be listed; {len(result.growing)} still grow")
    write_text(folder / CONFIG, config_text(config))
    write_text(folder / "Snakefile", SNAKEFILE)
    write_text(folder / "slurm" / "config.yaml", session_profile("slurm"))
    write_sessions(folder / SESSIONS, [session])
    report(result)
    say("init", f"session {name} is ready; go on with: cd {folder} && emflow run")


@dataclass(frozen=True)
class _Found:
    """What the headers of some files say."""

    path: str
    header: MrcHeader


def _check_star(star: Path, given: dict[str, float | None]) -> None:
    """Say what a STAR file holds; what it says of the microscope is not to be said again."""
    from emflow.io.star import read_relion_micrographs

    told = sorted(key for key, value in given.items() if value is not None)
    if told:
        raise SettingError(f"{star}: brings its own optics groups; leave out {', '.join(told)}")
    if not star.is_file():
        raise SettingError(f"{star}: no such file")
    entries = read_relion_micrographs(star)
    if not entries:
        raise SettingError(f"{star}: lists no micrograph")
    for optics in sorted({entry.optics for entry in entries}, key=lambda optics: optics.name):
        say(
            "init",
            f"{star}: optics group {optics.name}: {optics.pixel_size_angstrom:g} A/pixel, "
            f"{optics.voltage_kilovolt:g} kV, Cs {optics.spherical_aberration_millimetre:g} mm",
        )
    with_ctf = sum(entry.ctf is not None for entry in entries)
    say("init", f"{star}: {len(entries)} micrographs, {with_ctf} with a CTF")


def _from_headers(pattern: str, given: dict[str, float | None]) -> dict[str, object]:
    """Return the microscope's constants: as given, else from the headers; say what was found where."""
    probe = Session(session="probe", micrographs=pattern, diameter_angstrom=100)
    files = candidates(probe)
    if not files:
        raise SettingError(f"--micrographs {pattern}: no file matches{_hint(pattern)}")
    headers: list[_Found] = []
    for candidate in files[:_HEADERS]:
        try:
            headers.append(_Found(candidate.path, read_header(Path(candidate.path))))
        except BadInputError as error:
            say("init", f"{candidate.path} {error}")
    if not headers:
        raise SettingError(f"--micrographs {pattern}: none of the first {_HEADERS} files can be read")
    values: dict[str, object] = {}
    flags = {
        "pixel_size_angstrom": ("--pixel-size", "A/pixel"),
        "voltage_kilovolt": ("--voltage", "kV"),
        "spherical_aberration_millimetre": ("--cs", "mm"),
    }
    for key, (flag, unit) in flags.items():
        said = next((found for found in headers if getattr(found.header, key) is not None), None)
        stated = getattr(said.header, key) if said else None
        wanted = given[key]
        if wanted is None and stated is None:
            raise SettingError(
                f"{flag}: not given, and the headers of {headers[0].path} and others do not say it"
            )
        values[key] = stated if wanted is None else wanted
        if said is None:
            continue
        if wanted is None:
            say("init", f"{flag} {stated:g} {unit}, from the header of {said.path}")
        elif stated is not None and abs(stated - wanted) > 0.01 * stated:
            say("init", f"{flag} {wanted:g} {unit} as given; the header of {said.path} says {stated:g}")
            if key == "pixel_size_angstrom":
                values["header_pixel_size_angstrom"] = stated
    return values


def _hint(pattern: str) -> str:
    if any(glob.has_magic(part) for part in Path(pattern).parts):
        return "; is the pattern in quotes?"
    return ""
