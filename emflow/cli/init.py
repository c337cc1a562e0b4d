"""Make a session folder: settings, the list of inputs, a Snakefile of a few lines, a cluster profile."""

import glob
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from emflow.cli.profile import session_profile
from emflow.cli.progress import say
from emflow.cli.scan import report
from emflow.config import Config, Session, parse_session
from emflow.errors import BadInputError, SettingError
from emflow.io.files import write_text
from emflow.io.inputs import INPUTS, candidates, read_inputs, scan
from emflow.io.micrographs import read_header
from emflow.io.movies import MovieHeader, read_movie_header
from emflow.io.mrc import MrcHeader
from emflow.io.plan import check_camera
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
    diameter: float | None = None,
    micrographs: str | None = None,
    movies: str | None = None,
    tilt_series: str | None = None,
    tomograms: str | None = None,
    pixel_size: float | None = None,
    voltage: float | None = None,
    cs: Annotated[float | None, Parameter(name="--cs")] = None,
    amplitude_contrast: float = 0.1,
    exposure: float | None = None,
    total_exposure: float | None = None,
    pre_exposure: float = 0.0,
    frames: int | Path | None = None,
    tilt_axis: float | None = None,
    tilt_hand: Literal[1, -1] | None = None,
    even_tomograms: str | None = None,
    odd_tomograms: str | None = None,
    protein_bright: bool = False,
    gain: Path | None = None,
    gain_rotation: Literal[0, 1, 2, 3] = 0,
    gain_flip: Literal["none", "upside_down", "left_right"] = "none",
    defects: Path | None = None,
    batch_size: int = 200,
    device: str = "auto",
) -> None:
    """Make a session folder for movies, motion-corrected micrographs, tilt series or tomograms.

    Parameters
    ----------
    folder
        The folder to make; its name becomes the session's name.
    diameter
        Longest diameter of the particle in angstrom; guessed from a few micrographs when not given, which
        takes a minute and is often but not always right. Movies need it given, tomography does not.
    micrographs
        Glob of MRC or TIFF files in quotes, or a RELION micrographs STAR file.
    movies
        Glob of movies in quotes (MRC, TIFF or EER), instead of micrographs.
    tilt_series
        Glob of tilt series in quotes (mdoc files, or stacks with .rawtlt or .tlt beside them), or RELION 5's
        tilt_series.star.
    tomograms
        Glob of ready tomograms in quotes (MRC or OME-Zarr).
    pixel_size
        Angstrom per pixel of the files; read from the headers or the STAR file when not given.
    voltage
        Acceleration voltage in kV; likewise.
    cs
        Spherical aberration in mm; likewise.
    amplitude_contrast
        Fraction of amplitude contrast.
    exposure
        Of a movie's frame in electrons per square angstrom; of EER, of a fraction that frames are grouped to;
        of a tilt series, of one tilt.
    total_exposure
        Of a whole EER movie.
    pre_exposure
        What the specimen got before a movie's first frame.
    frames
        How many frames a movie has; what most of the first movies have when not given. Of tilt series, the
        folder of the movies that their mdoc files name.
    tilt_axis
        Angle of the tilt axis in degrees, in place of what files say.
    tilt_hand
        1 if defocus grows with z, -1 if it falls: RELION's rlnTomoHand.
    even_tomograms, odd_tomograms
        Globs of tomograms of the halves; found by their names when not given.
    protein_bright
        Whether the tomograms show protein bright, as inverted ones do.
    gain
        Gain reference of the movies: MRC, TIFF or .gain.
    gain_rotation, gain_flip
        Quarter turns clockwise, and then a flip, that the gain needs: RELION's --gain_rot and --gain_flip.
    defects
        Map of bad pixels: an image that is not 0 there, or text with lines of x, y, width and height.
    batch_size
        Micrographs or movies per job.
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
    kinds = {
        "micrographs": micrographs,
        "movies": movies,
        "tilt_series": tilt_series,
        "tomograms": tomograms,
    }
    chosen = [(kind, pattern) for kind, pattern in kinds.items() if pattern is not None]
    if len(chosen) != 1:
        raise SettingError("give one of --micrographs, --movies, --tilt-series and --tomograms")
    ((kind, pattern),) = chosen
    tomography = kind in ("tilt_series", "tomograms")
    if isinstance(frames, Path) != tomography and frames is not None:
        raise SettingError(f"--frames {frames}: a number for movies, a folder for tilt series")
    if diameter is None and movies:
        raise SettingError("--diameter: not given; it can be guessed from micrographs, not from movies")
    source = os.path.abspath(pattern)  # noqa: PTH100 - Path.resolve would follow links inside the glob
    row: dict[str, object] = {
        "session": name,
        kind: source,
        "amplitude_contrast": amplitude_contrast,
        "diameter_angstrom": diameter,
        "exposure_electrons_per_square_angstrom": exposure,
        "total_exposure_electrons_per_square_angstrom": total_exposure,
        "pre_exposure_electrons_per_square_angstrom": pre_exposure,
        "frames": None if tomography else frames,
        "tilt_frames": os.path.abspath(frames) if isinstance(frames, Path) else None,  # noqa: PTH100
        "tilt_axis_degrees": tilt_axis,
        "tilt_hand": tilt_hand,
        "even_tomograms": even_tomograms and os.path.abspath(even_tomograms),  # noqa: PTH100
        "odd_tomograms": odd_tomograms and os.path.abspath(odd_tomograms),  # noqa: PTH100
        "protein_bright": protein_bright,
        "gain": gain and os.path.abspath(gain),  # noqa: PTH100
        "gain_rotation": gain_rotation,
        "gain_flip": gain_flip,
        "defects": defects and os.path.abspath(defects),  # noqa: PTH100
    }
    if tomography:
        from emflow.cli.init_tomography import from_tilt_series, from_tomograms

        row |= from_tilt_series(row, given) if kind == "tilt_series" else from_tomograms(row, given)
    elif kind == "micrographs" and source.endswith(".star"):
        _check_star(Path(source), given)
    else:
        row = row | _from_headers(kind, source, given) | ({"frames": frames} if frames else {})
    if diameter is None and not tomography:
        row["diameter_angstrom"] = _guess(row)
    session = parse_session(row, "emflow init")
    config = Config.model_validate({"device": device, "batches": {"size": batch_size}})
    (folder / "config").mkdir(parents=True, exist_ok=True)
    result = scan([session], batch_size, folder / INPUTS)
    if session.movies:
        try:
            check_camera(session, read_inputs(folder / INPUTS))
        except SettingError:
            (folder / INPUTS).unlink(missing_ok=True)  # or the next try would list nothing
            raise
    if not result.added:
        raise SettingError(f"{pattern}: no file is ready to be listed; {len(result.growing)} still grow")
    write_text(folder / CONFIG, config_text(config))
    write_text(folder / "Snakefile", SNAKEFILE)
    write_text(folder / "slurm" / "config.yaml", session_profile("slurm"))
    write_sessions(folder / SESSIONS, [session])
    report(result)
    say("init", f"session {name} is ready; go on with: cd {folder} && emflow run")


def _guess(row: dict[str, object]) -> float:
    """Guess the diameter from the micrographs of a session's row, all else in it being known."""
    from emflow.cli.diameter import guessed_diameter
    from emflow.io.star import read_relion_micrographs

    # Any diameter: the row's other values are checked before the guess takes its time.
    session = parse_session(row | {"diameter_angstrom": 100.0}, "emflow init")
    if session.is_star:
        entries = read_relion_micrographs(Path(str(session.micrographs)))
        return guessed_diameter([(entry.path, entry.optics.pixel_size_angstrom) for entry in entries])
    files = [Path(candidate.path) for candidate in candidates(session)]
    return guessed_diameter([(path, session.pixel_size_angstrom or 0.0) for path in files])


@dataclass(frozen=True)
class _Found:
    """What the headers of some files say."""

    path: str
    header: MrcHeader | MovieHeader


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


def _from_headers(kind: str, pattern: str, given: dict[str, float | None]) -> dict[str, object]:
    """Return the microscope's constants: as given, else from the headers; say what was found where."""
    probe = Session.model_validate({"session": "probe", kind: pattern, "diameter_angstrom": 100})
    files = candidates(probe)
    if not files:
        raise SettingError(f"--{kind} {pattern}: no file matches{_hint(pattern)}")
    headers: list[_Found] = []
    read = read_movie_header if kind == "movies" else read_header
    for candidate in files[:_HEADERS]:
        try:
            headers.append(_Found(candidate.path, read(Path(candidate.path))))
        except BadInputError as error:
            say("init", f"{candidate.path} {error}")
    if not headers:
        raise SettingError(f"--{kind} {pattern}: none of the first {_HEADERS} files can be read")
    values: dict[str, object] = {}
    flags = {
        "pixel_size_angstrom": ("--pixel-size", "A/pixel"),
        "voltage_kilovolt": ("--voltage", "kV"),
        "spherical_aberration_millimetre": ("--cs", "mm"),
    }
    for key, (flag, unit) in flags.items():
        # A movie's header says no voltage
        said = next((found for found in headers if getattr(found.header, key, None) is not None), None)
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
    counts = Counter(
        found.header.frames
        for found in headers
        if isinstance(found.header, MovieHeader) and found.header.frames > 1
    )
    if counts:
        values["frames"] = counts.most_common(1)[0][0]
    return values


def _hint(pattern: str) -> str:
    if any(glob.has_magic(part) for part in Path(pattern).parts):
        return "; is the pattern in quotes?"
    return ""
