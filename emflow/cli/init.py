"""Make a session folder: settings, the list of inputs, a Snakefile of a few lines, a cluster profile."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from emflow.cli.init_micrographs import check_star, from_headers, guess_diameter
from emflow.cli.profile import session_profile
from emflow.cli.progress import say
from emflow.cli.scan import report
from emflow.config import Config, parse_session
from emflow.errors import SettingError
from emflow.io.files import write_text
from emflow.io.inputs import INPUTS, read_inputs
from emflow.io.plan import check_camera
from emflow.io.scan import scan
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
        Gain reference of the movies, also of a tilt series' ones: MRC, TIFF or .gain.
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
        check_star(Path(source), given)
    else:
        row = row | from_headers(kind, source, given) | ({"frames": frames} if frames else {})
    if diameter is None and not tomography:
        row["diameter_angstrom"] = guess_diameter(row)
    session = parse_session(row, "emflow init")
    config = Config.model_validate({"device": device, "batches": {"size": batch_size}})
    (folder / "config").mkdir(parents=True, exist_ok=True)
    result = scan([session], batch_size, folder / INPUTS)
    if session.movies or session.tilt_series:
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
