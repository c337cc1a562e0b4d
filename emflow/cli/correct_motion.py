"""Correct the motion of one batch of movies: a micrograph each, and what RELION wants to know of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.devices import choose_device
from emflow.errors import BadInputError, SettingError
from emflow.io.index import FAILED, OK, SUPERSEDED, MicrographRow, write_failures, write_index
from emflow.io.inputs import InputRow, batch_digest, check_unchanged, read_inputs, superseded_names
from emflow.io.motion_star import (
    CorrectedRow,
    MovieMotion,
    motion_lengths,
    write_corrected_star,
    write_motion_star,
)
from emflow.io.movies import (
    GAIN_SUFFIX,
    Movie,
    check_gain,
    count_eer_frames,
    eer_grouping,
    fit_eer_gain,
    is_eer,
    open_movie,
    read_defects,
    read_gain,
)
from emflow.io.mrc import check_pixels, write_mrc
from emflow.metadata import OpticsGroup

if TYPE_CHECKING:
    import torch

    from emflow.motion import MotionEstimate
    from emflow.motion.bad_pixels import BadPixelFiller

_PIXEL_SIZE_TOLERANCE = 0.05
# More bad pixels than this, and the camera or the gain reference is at fault.
_MAXIMUM_BAD_FRACTION = 0.1


def correct_motion(
    *,
    inputs: Path,
    session: str,
    batch: str,
    digest: str,
    output: Path,
    pixel_size_angstrom: float,
    voltage_kilovolt: float,
    spherical_aberration_millimetre: float,
    exposure_electrons_per_square_angstrom: float,
    amplitude_contrast: float = 0.1,
    pre_exposure_electrons_per_square_angstrom: float = 0.0,
    total_exposure_electrons_per_square_angstrom: float | None = None,
    gain: Path | None = None,
    gain_rotation: Literal[0, 1, 2, 3] = 0,
    gain_flip: Literal["none", "upside_down", "left_right"] = "none",
    defects: Path | None = None,
    frames: int | None = None,
    first_frame: int = 1,
    last_frame: int | None = None,
    group_frames: int = 1,
    eer_upsampling: Literal[1, 2] = 1,
    output_pixel_size_angstrom: float | None = None,
    local: bool = True,
    dose_weighting: bool = True,
    unweighted: bool = False,
    halves_pixel_size_angstrom: float | None = None,
    half_precision: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
) -> None:
    """Align and sum a batch's movies; write a micrograph each, their table, and RELION's STAR files.

    Parameters
    ----------
    inputs
        The session folder's inputs.tsv.
    session, batch
        Which rows of it.
    digest
        What those rows were when the job was planned; another digest is refused.
    output
        The micrographs.tsv to write; micrographs, corrected_micrographs.star and motion.tsv go beside it.
    pixel_size_angstrom
        Angstrom per pixel of the movies' frames (of EER: at the upsampling asked for).
    voltage_kilovolt
        Acceleration voltage in kV.
    spherical_aberration_millimetre
        Cs in mm.
    exposure_electrons_per_square_angstrom
        Of one frame; of EER, of one fraction.
    amplitude_contrast
        Fraction of amplitude contrast.
    pre_exposure_electrons_per_square_angstrom
        What the specimen got before the first frame.
    total_exposure_electrons_per_square_angstrom
        Of a whole EER movie: its frames are grouped so that a fraction gets about the exposure of one frame.
    gain
        Gain reference: MRC, TIFF or, for EER, .gain.
    gain_rotation
        Quarter turns clockwise that the gain needs (RELION's --gain_rot).
    gain_flip
        Flip that it needs after that (RELION's --gain_flip).
    defects
        Map of bad pixels: an image that is not 0 there, or text with lines of x, y, width and height.
    frames
        How many frames a movie has; one that has fewer is left out.
    first_frame, last_frame
        Which frames to use, counted from 1.
    group_frames
        How many frames to sum for the alignment, where single ones show too little.
    eer_upsampling
        1 for the detector's own pixels, 2 for half pixels.
    output_pixel_size_angstrom
        Of the micrographs, which are then cropped in Fourier space; the movies' own when not given.
    local
        Whether to look for local motion.
    dose_weighting
        Whether to weigh frames by their exposure.
    unweighted
        Whether to write the plain sum as well, as *_noDW.mrc.
    halves_pixel_size_angstrom
        If given, the sums of even and odd frames are written at this pixel size, as *_even.mrc and *_odd.mrc.
    half_precision
        Whether micrographs are written in 16-bit floats (MRC mode 12).
    device
        Where to compute.
    threads
        Of the CPU.
    """
    import torch

    if not exposure_electrons_per_square_angstrom > 0:
        raise SettingError(
            "exposure_electrons_per_square_angstrom: give the exposure of one frame, above nought"
        )
    if first_frame < 1 or (last_frame is not None and last_frame <= first_frame) or group_frames < 1:
        raise SettingError("first_frame, last_frame, group_frames: at least two frames are needed, from 1 on")
    if not 80 <= voltage_kilovolt <= 1000:
        raise SettingError(f"voltage_kilovolt: {voltage_kilovolt:g} is no voltage in kV of a microscope")
    torch.set_num_threads(threads)
    rows = read_inputs(inputs)
    ours = [row for row in rows if row.session == session and row.batch == batch]
    if batch_digest(ours) != digest:
        raise SettingError(f"{inputs}: {session} {batch} is not what this job was planned for; run again")
    job = _Job(
        folder=output.parent,
        session=session,
        optics=OpticsGroup(
            session,
            pixel_size_angstrom,
            voltage_kilovolt,
            spherical_aberration_millimetre,
            amplitude_contrast,
        ),
        exposure=exposure_electrons_per_square_angstrom,
        pre_exposure=pre_exposure_electrons_per_square_angstrom,
        total_exposure=total_exposure_electrons_per_square_angstrom,
        gain_path=gain,
        gain=_gain(gain, gain_rotation, gain_flip),
        defects=defects,
        frames=frames,
        first_frame=first_frame,
        last_frame=last_frame,
        group_frames=group_frames,
        eer_upsampling=eer_upsampling,
        output_pixel_size_angstrom=output_pixel_size_angstrom,
        local=local,
        dose_weighting=dose_weighting,
        unweighted=unweighted,
        halves_pixel_size_angstrom=halves_pixel_size_angstrom,
        half_precision=half_precision,
        device=choose_device(device),
    )
    newer = superseded_names(rows, session, batch)
    table, corrected = [], []
    for number, row in enumerate(ours, 1):
        try:
            check_unchanged(row)
            micrograph, entry = job.correct(row)
        except BadInputError as error:
            if row.name in newer:
                table.append(MicrographRow(row.name, SUPERSEDED, "a newer version stands in a later batch"))
                continue
            say("correct_motion", f"left out {row.path}: {error}")
            table.append(MicrographRow(row.name, FAILED, f"{row.path} {error}"))
            continue
        table.append(micrograph)
        corrected.append(entry)
        say("correct_motion", f"{number}/{len(ours)} {row.name}: moved {entry.lengths.total:.1f} A")
    if corrected:
        sizes = [row.pixel_size_angstrom for row in table if row.status == OK]
        write_corrected_star(
            output.parent / "corrected_micrographs.star",
            corrected,
            OpticsGroup(
                session,
                sizes[0] or pixel_size_angstrom,
                voltage_kilovolt,
                spherical_aberration_millimetre,
                amplitude_contrast,
            ),
            movie_pixel_size_angstrom=pixel_size_angstrom,
        )
    write_failures(output.parent, table)
    write_index(output, table, MicrographRow)
    say("correct_motion", f"{session} {batch}: {len(corrected)} of {len(table)} movies corrected")


def _gain(path: Path | None, quarter_turns: int, flip: str) -> NDArray[np.float32] | None:
    if path is None:
        return None
    try:
        return read_gain(path, rotate_quarter_turns=quarter_turns, flip=flip)
    except BadInputError as error:
        raise SettingError(f"gain: {path} {error}") from None


@dataclass(frozen=True)
class _Job:
    """The settings of a batch, and the work on one movie."""

    folder: Path
    session: str
    optics: OpticsGroup
    exposure: float
    pre_exposure: float
    total_exposure: float | None
    gain_path: Path | None
    gain: NDArray[np.float32] | None
    defects: Path | None
    frames: int | None
    first_frame: int
    last_frame: int | None
    group_frames: int
    eer_upsampling: int
    output_pixel_size_angstrom: float | None
    local: bool
    dose_weighting: bool
    unweighted: bool
    halves_pixel_size_angstrom: float | None
    half_precision: bool
    device: "torch.device"

    def correct(self, row: InputRow) -> tuple[MicrographRow, CorrectedRow]:
        """Correct a movie and write what comes of it.

        Raises
        ------
        BadInputError
            If the movie cannot be used.
        """
        path = Path(row.path)
        grouping, exposure = 1, self.exposure
        if is_eer(path):
            if self.total_exposure is None:
                raise BadInputError(
                    "is EER: total_exposure_electrons_per_square_angstrom is needed to group its frames"
                )
            raw = count_eer_frames(path)
            grouping = eer_grouping(raw, self.total_exposure, self.exposure)
            exposure = self.total_exposure * grouping / raw
        with open_movie(path, eer_grouping=grouping, eer_upsampling=self.eer_upsampling) as movie:
            stated = movie.pixel_size_angstrom
            expected = self.optics.pixel_size_angstrom
            if stated is not None and abs(stated / expected - 1) > _PIXEL_SIZE_TOLERANCE:
                raise BadInputError(
                    f"has a pixel size of {stated:.4g} A in its header, the settings say {expected:.4g} A"
                )
            if self.frames is not None and movie.frames < self.frames:
                raise BadInputError(f"has {movie.frames} frames, the others {self.frames}")
            used = range(self.first_frame - 1, min(self.last_frame or movie.frames, movie.frames))
            if len(used) < 2:
                raise BadInputError(f"has {movie.frames} frames, too few to begin with {self.first_frame}")
            stack = [movie.read(frame) for frame in used]
            return self._process(row, movie, stack, exposure, grouping)

    def _process(
        self, row: InputRow, movie: Movie, stack: list[NDArray[np.generic]], exposure: float, grouping: int
    ) -> tuple[MicrographRow, CorrectedRow]:
        from emflow.fourier import resized_shape
        from emflow.motion import correct_frames

        path, shape = Path(row.path), movie.shape
        source = self._frames(path, stack, shape)
        pixel = self.optics.pixel_size_angstrom
        estimate = self._estimate(source, shape, exposure)
        before = self.pre_exposure + (self.first_frame - 1) * exposure
        out_shape = (
            resized_shape(shape, pixel, self.output_pixel_size_angstrom)
            if self.output_pixel_size_angstrom is not None and self.output_pixel_size_angstrom > pixel
            else None
        )
        halves_shape = None
        if self.halves_pixel_size_angstrom is not None:
            halves_shape = resized_shape(shape, pixel, max(pixel, self.halves_pixel_size_angstrom))
        result = correct_frames(
            source.tensors(),
            estimate.field,
            pixel_size_angstrom=pixel,
            exposure_electrons_per_square_angstrom=exposure if self.dose_weighting else None,
            first_exposure_electrons_per_square_angstrom=before,
            voltage_kilovolt=self.optics.voltage_kilovolt,
            out_shape=out_shape,
            plain=self.unweighted,
            halves_shape=halves_shape,
        )
        check_pixels(result.weighted)
        height, width = result.weighted.shape
        pixel_out = pixel * (shape[0] / height + shape[1] / width) / 2
        target = self.folder / "micrographs" / f"{row.name}.mrc"
        self._write(target, result.weighted, pixel_out)
        plain_name = ""
        if result.plain is not None:
            plain = target.with_name(f"{path.name}_noDW.mrc")
            self._write(plain, result.plain, pixel_out)
            plain_name = str(plain.relative_to(self.folder))
        for name, half in (("even", result.even), ("odd", result.odd)):
            if half is not None:
                self._write(
                    target.with_name(f"{path.name}_{name}.mrc"), half, pixel * shape[0] / half.shape[0]
                )
        metadata = self.folder / "micrographs" / f"{row.name}.star"
        write_motion_star(
            metadata,
            MovieMotion(
                movie_name=row.path,
                frames=movie.frames,
                field=estimate.field,
                pixel_size_angstrom=pixel,
                voltage_kilovolt=self.optics.voltage_kilovolt,
                exposure_electrons_per_square_angstrom=exposure,
                pre_exposure_electrons_per_square_angstrom=self.pre_exposure,
                binning=pixel_out / pixel,
                first_frame=self.first_frame,
                gain_name=str(self.gain_path) if self.gain_path else "",
                eer_grouping=grouping if is_eer(path) else None,
                eer_upsampling=self.eer_upsampling if is_eer(path) else None,
                bad_pixels_yx=np.argwhere(source.found),
            ),
        )
        lengths = motion_lengths(estimate.field, pixel, exposure)
        micrograph = MicrographRow(
            name=row.name,
            status=OK,
            path=str(target.absolute()),
            height=height,
            width=width,
            optics_group=self.optics.name,
            pixel_size_angstrom=pixel_out,
            voltage_kilovolt=self.optics.voltage_kilovolt,
            spherical_aberration_millimetre=self.optics.spherical_aberration_millimetre,
            amplitude_contrast=self.optics.amplitude_contrast,
        )
        relative = str(target.relative_to(self.folder))
        return micrograph, CorrectedRow(relative, str(metadata.relative_to(self.folder)), lengths, plain_name)

    def _write(self, path: Path, image: NDArray[np.float32], pixel_size_angstrom: float) -> None:
        write_mrc(path, image.astype(np.float16) if self.half_precision else image, pixel_size_angstrom)

    def _frames(self, path: Path, stack: list[NDArray[np.generic]], shape: tuple[int, int]) -> "_Frames":
        from emflow.motion.bad_pixels import BadPixelFiller, bad_fraction, find_bad_pixels
        from emflow.motion.gain import gain_complaint, gain_orientations

        gain = self.gain
        if gain is not None:
            if is_eer(path) and self.gain_path is not None:
                multiplies = self.gain_path.suffix.lower() == GAIN_SUFFIX
                gain = fit_eer_gain(gain, shape, multiplies=multiplies)
            check_gain(gain, shape)
        total = np.zeros(shape, dtype=np.float32)
        for frame in stack:
            total += frame  # type: ignore[arg-type]
        if not np.isfinite(total).all():
            raise BadInputError("has pixels that are NaN or infinite")
        if total.min() == total.max():
            raise BadInputError(f"is constant: every pixel of its sum is {float(total.flat[0]):g}")
        bad = np.zeros(shape, dtype=bool)
        if gain is not None:
            complaint = gain_complaint(gain_orientations(total, gain))
            if complaint:
                raise BadInputError(f"and its gain disagree: {complaint}")
            total *= gain
            bad |= gain == 0
        if self.defects is not None:
            try:
                bad |= read_defects(self.defects, shape)
            except BadInputError as error:
                raise BadInputError(f"has a defect map {self.defects} that {error}") from None
        found = find_bad_pixels(total, bad)
        bad |= found
        if bad_fraction(bad) > _MAXIMUM_BAD_FRACTION:
            raise BadInputError(
                f"has {100 * bad_fraction(bad):.0f} % bad pixels: is it the right gain reference and defect "
                f"map?"
            )
        return _Frames(stack, gain, BadPixelFiller(bad), found, self.device)

    def _estimate(self, source: "_Frames", shape: tuple[int, int], exposure: float) -> "MotionEstimate":
        import torch

        from emflow.motion import MotionSettings, estimate_motion, fourier_crop, working_shape
        from emflow.motion.estimate import expand_groups

        settings = MotionSettings() if self.local else MotionSettings(degree=0)
        pixel = self.optics.pixel_size_angstrom
        small = working_shape(shape, pixel, settings)
        group = self.group_frames
        count = math.ceil(source.count / group) if source.count >= 2 * group else source.count
        group = math.ceil(source.count / count)
        working = torch.zeros((math.ceil(source.count / group), *small), device=self.device)
        for number, frame in enumerate(source.tensors()):
            working[number // group] += fourier_crop(frame[None], small)[0]
        estimate = estimate_motion(
            working,
            shape=shape,
            pixel_size_angstrom=pixel,
            exposure_electrons_per_square_angstrom=exposure * group,
            voltage_kilovolt=self.optics.voltage_kilovolt,
            settings=settings,
        )
        return expand_groups(estimate, group, source.count)


class _Frames:
    """A movie's frames, gain and bad pixels corrected, as often as they are asked for."""

    def __init__(
        self,
        stack: list[NDArray[np.generic]],
        gain: NDArray[np.float32] | None,
        filler: "BadPixelFiller",
        found: NDArray[np.bool_],
        device: "torch.device",
    ) -> None:
        self._stack, self._gain, self._filler, self._device = stack, gain, filler, device
        self.found = found
        self.count = len(stack)

    def tensors(self) -> "Iterator[torch.Tensor]":
        """Yield each frame (h, w) as float32 on the device."""
        import torch

        for number, raw in enumerate(self._stack):
            frame = np.array(raw, dtype=np.float32)
            if self._gain is not None:
                frame *= self._gain
            self._filler.fill(frame, number)
            yield torch.from_numpy(frame).to(self._device)
