"""The plan of a run: settings, sessions and batches of a session folder, read once and frozen.

The Snakefile reads it in the master and again in every job, so it imports neither torch nor zarr.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from emflow.config import Config, Session
from emflow.errors import BadInputError, SettingError
from emflow.io.files import sha256
from emflow.io.gains import gain_fits, gain_shape
from emflow.io.inputs import INPUTS, InputRow, batch_digest, read_inputs
from emflow.io.movies import is_eer
from emflow.io.scan import candidates
from emflow.io.settings import read_config, read_sessions
from emflow.io.tomograms import stored_pixel_size_angstrom
from emflow.model_card import PIXEL_SIZE_TOLERANCE, ModelCard
from emflow.resources import model_folder

RESULTS = Path("results")


@dataclass(frozen=True)
class Batch:
    """A batch as the plan sees it: what it is made of, and how much."""

    digest: str
    micrographs: int
    megapixels: float  # of one micrograph
    frames: int = 1  # of the longest movie


@dataclass(frozen=True)
class TiltSeriesInput:
    """A tilt series, or a ready tomogram, as the plan sees it: what it is made of, and how much."""

    digest: str
    sections: int  # images of the series, slices of the tomogram
    megapixels: float  # of one of them


@dataclass(frozen=True)
class Plan:
    """All that the rules need to know of a session folder."""

    config: Config
    sessions: dict[str, Session]
    batches: dict[str, dict[str, Batch]]  # by session, then by batch, in order
    models: dict[str, Path]  # by stage
    tilt_series: dict[str, dict[str, TiltSeriesInput]]  # by session, then by name, of tomography alone

    @property
    def with_tilt_series(self) -> list[str]:
        """Names of the sessions that start from tilt series."""
        return [name for name, session in self.sessions.items() if session.tilt_series is not None]

    @property
    def with_tomograms(self) -> list[str]:
        """Names of the sessions that start from ready tomograms."""
        return [name for name, session in self.sessions.items() if session.tomograms is not None]

    @property
    def with_movies(self) -> list[str]:
        """Names of the sessions that start from movies."""
        return [name for name, session in self.sessions.items() if session.movies is not None]

    @property
    def with_micrographs(self) -> list[str]:
        """Names of the sessions that start from micrographs."""
        return [name for name, session in self.sessions.items() if session.micrographs is not None]


def read_plan(*, needs_sessions: bool = True) -> Plan:
    """Read the plan of the folder that snakemake runs in.

    Parameters
    ----------
    needs_sessions
        Whether to refuse a folder that has no session, or one that lists no input: models are trained
        without.

    Raises
    ------
    SettingError
        If a setting is wrong, a model is absent, or a session lists no input.
    """
    config = read_config()
    sessions = {session.session: session for session in read_sessions(may_be_none=not needs_sessions)}
    rows = read_inputs()
    series: dict[str, dict[str, TiltSeriesInput]] = {
        name: {} for name, session in sessions.items() if session.is_tomography
    }
    batches: dict[str, dict[str, Batch]] = {name: {} for name in sessions if name not in series}
    for (session, batch), group in groupby(rows, key=lambda row: (row.session, row.batch)):
        members = list(group)
        if session in series:
            # The last row of a name stands for all
            series[session] |= {row.name: _tilt_series_input(row) for row in members}
        if session in batches:
            size = members[0].height * members[0].width / 1e6
            frames = max(member.frames for member in members)
            batches[session][batch] = Batch(batch_digest(members), len(members), size, frames)
    for name, listed in (batches | series).items():
        if not listed and needs_sessions:
            raise SettingError(f"{INPUTS}: lists no file of session {name}; run emflow scan")
    models = {"pick": model_folder(config.pick.model)}
    if config.denoise.enabled or config.pick.image == "denoised":
        models["denoise"] = model_folder(config.denoise.model)
    if series:
        models["segment"] = model_folder(config.segment.model)
    if series and (config.denoise_tomogram.enabled or config.segment.image == "denoised"):
        models["denoise_tomogram"] = model_folder(config.denoise_tomogram.model)
    return Plan(config, sessions, batches, models, series)


def _tilt_series_input(row: InputRow) -> TiltSeriesInput:
    return TiltSeriesInput(batch_digest([row]), row.frames, row.height * row.width / 1e6)


@cache
def camera_digests(session: Session) -> dict[str, str]:
    """Return the SHA-256 of a session's ``"gain"`` and ``"defects"``, or nothing where there is no such file.

    Files of a camera's size: read once, and only for the rule that asks.
    """
    files = {"gain": session.gain, "defects": session.defects}
    return {kind: sha256(Path(path)) if path and Path(path).is_file() else "" for kind, path in files.items()}


def check_machine(plan: Plan, *, jobs_run_here: bool) -> None:
    """Refuse, before the first job, what would fail every job.

    Raises
    ------
    SettingError
        If results/ cannot be written, a model is corrupted or of another scale than the tomograms, a template
        is none, a gain reference fits none of its movies, or cuda was asked for and jobs run on this machine,
        which has none.
    """
    from emflow.devices import cuda_driver_present
    from emflow.io.model import check_model

    try:
        RESULTS.mkdir(exist_ok=True)
        probe = RESULTS / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingError(f"{RESULTS.absolute()}: cannot be written: {error.strerror}") from None
    cards = {stage: check_model(folder, stage) for stage, folder in plan.models.items()}
    if plan.tilt_series and plan.config.template_matching.template is not None:
        check_template(plan.config)
    check_scale(plan, cards)
    if "segment" in cards:
        known = cards["segment"].classes or ()
        named = {"pick_tomogram.classes": plan.config.pick_tomogram.classes}
        if plan.config.template_matching.template is not None:
            named["template_matching.outside"] = plan.config.template_matching.outside
        for key, names in named.items():
            for name in names:
                if name not in known:
                    raise SettingError(
                        f"{key}: {name} is no class of the segmenter; it has {', '.join(known)}"
                    )
    with_camera = [*plan.with_movies, *plan.with_tilt_series]
    learns = plan.config.denoise_tomogram.train and "denoise_tomogram" in plan.models
    rows = read_inputs() if with_camera or learns else []
    if learns:
        check_training(plan, rows)
    for name in with_camera:
        check_camera(plan.sessions[name], rows)
    if plan.config.device == "cuda" and jobs_run_here and not cuda_driver_present():
        raise SettingError(
            "device: cuda was asked for, but this machine has no GPU; set device to auto or cpu"
        )


def check_scale(plan: Plan, cards: Mapping[str, ModelCard]) -> None:
    """Refuse tomograms whose voxels are far from those that a model which is asked for was trained on.

    Raises
    ------
    SettingError
        Naming the key, both sizes, and how to do without the model.
    """
    wanted = plan.config.tomogram.pixel_size_angstrom
    for stage, way_out in _needed_models(plan.config).items():
        if stage not in cards:
            continue
        works_at = cards[stage].pixel_size_angstrom or wanted
        low, high = ((1 + sign * PIXEL_SIZE_TOLERANCE) * works_at for sign in (-1, 1))
        model = f"{stage}.model works at {works_at:g} A ({low:g} to {high:g})"
        otherwise = f"name a model of that scale, or {way_out}"
        for name in plan.tilt_series:
            session = plan.sessions[name]
            own = session.pixel_size_angstrom or 0.0  # mdoc and STAR files may say it instead
            if own > high:
                raise SettingError(
                    f"session {name}: pixel_size_angstrom: {own:g} A is too coarse: {model}; give data "
                    f"binned less, {otherwise}"
                )
            stored = (
                max(own, wanted) if session.tomograms is None else stored_pixel_size_angstrom(own, wanted)
            )
            if not low <= stored <= high:
                raise SettingError(
                    f"tomogram.pixel_size_angstrom: {wanted:g} A: {model}; set it to that, {otherwise}"
                )


def _needed_models(config: Config) -> dict[str, str]:
    """Return the stages of tomograms whose models have to fit, and how to do without each."""
    matching = config.template_matching
    needed = {}
    if config.pick_tomogram.classes or (matching.template is not None and matching.outside):
        needed["segment"] = (
            "do without the segmentation (pick_tomogram.classes: [], template_matching.outside: [])"
        )
    raw = ", segment.image: raw" if needed and config.segment.image == "denoised" else ""
    if config.denoise_tomogram.enabled or raw:
        needed["denoise_tomogram"] = f"set denoise_tomogram.enabled: false{raw}"
    return needed


def check_template(config: Config) -> None:
    """Refuse a template that cannot be looked for in any tomogram.

    Raises
    ------
    SettingError
        Naming the key and the file.
    """
    from emflow.io.templates import check_template_size, read_template

    settings = config.template_matching
    if settings.name in config.pick_tomogram.classes:
        raise SettingError(
            f"template_matching.name: {settings.name} is one of pick_tomogram.classes; name it otherwise, or "
            "take it out there"
        )
    file = read_template(
        Path(settings.template or ""),
        template_pixel_size_angstrom=settings.template_pixel_size_angstrom,
        diameter_angstrom=settings.diameter_angstrom,
    )
    check_template_size(file, max(settings.pixel_size_angstrom, config.tomogram.pixel_size_angstrom))


@cache
def template_digest(path: str) -> str:
    """Return the SHA-256 of a template's file: read once, and only for the rule that asks."""
    return sha256(Path(path))


def check_camera(session: Session, rows: Sequence[InputRow]) -> None:
    """Refuse a gain reference or a map of bad pixels that is absent, or fits none of a session's movies.

    Raises
    ------
    SettingError
        Naming the column and, for a wrong size, both sizes.
    """
    for column in ("gain", "defects"):
        path = getattr(session, column)
        if path and not Path(path).is_file():
            raise SettingError(f"session {session.session}: {column}: {path}: no such file")
    if not session.gain:
        return
    gain = Path(session.gain)
    try:
        shape = gain_shape(gain, session.gain_rotation)
    except BadInputError as error:
        raise SettingError(f"session {session.session}: gain: {gain} {error}") from None
    ours = [row for row in rows if row.session == session.session and row.height]
    if not ours or any(_gain_serves(shape, row) for row in ours):
        return
    ((height, width), _), *_ = Counter((row.height, row.width) for row in ours).most_common(1)
    hint = "; change gain_rotation by a quarter turn" if shape == (width, height) else ""
    raise SettingError(
        f"session {session.session}: gain: {gain} has {shape[1]} x {shape[0]} pixels when turned, the movies "
        f"{width} x {height}{hint}"
    )


def _gain_serves(shape: tuple[int, int], row: InputRow) -> bool:
    """Whether a gain of a shape (h, w) serves a movie, or the movies of a tilt series."""
    size = row.height, row.width
    if gain_fits(shape, size, eer=False):
        return True
    return gain_fits(shape, size, eer=True) and _holds_eer(Path(row.path))


def _holds_eer(path: Path) -> bool:
    """Whether a file is EER, or the text of a tilt series that names such movies."""
    if path.suffix.lower() not in (".mdoc", ".star"):
        return is_eer(path)
    try:
        return b".eer" in path.read_bytes().lower()
    except OSError:
        return False


def check_training(plan: Plan, rows: Sequence[InputRow]) -> None:
    """Refuse to train without Lightning, or on a session of ready tomograms of which none has halves.

    Raises
    ------
    SettingError
        Naming the key, and a tomogram.
    """
    from emflow.io.tilt_series.listing import tomogram_unit

    if find_spec("lightning") is None:
        raise SettingError(
            "denoise_tomogram.train: needs lightning: pip install 'emflow[train]'; or set it to false"
        )
    for name in plan.with_tomograms:
        session = plan.sessions[name]
        paths = {row.name: Path(row.path) for row in rows if row.session == name}
        used = list(paths.items())[: plan.config.denoise_tomogram.train_tomograms]
        globs = session.even_tomograms, session.odd_tomograms
        if not any(tomogram_unit(path, unit, *globs).even for unit, path in used):
            raise SettingError(
                f"denoise_tomogram.train: session {name}: {used[0][1]} has no even and odd halves to learn "
                "from (nor have the others); name them in sessions.tsv (even_tomograms, odd_tomograms), or "
                "set it to false"
            )


def unlisted(plan: Plan) -> Counter[str]:
    """Count, by session, the files that its glob finds and inputs.tsv does not list."""
    listed = {(row.session, row.name) for row in read_inputs()}
    return Counter(
        name
        for name, session in plan.sessions.items()
        if not session.is_star
        for candidate in candidates(session)
        if (name, candidate.name) not in listed
    )
