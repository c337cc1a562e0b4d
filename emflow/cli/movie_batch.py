"""What correct_motion does with one movie: read it, estimate and undo its motion, write what comes of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emflow.cli.input_batch import check_pixel_size
from emflow.errors import BadInputError
from emflow.io.gains import check_gain, fit_eer_gain, read_defects
from emflow.io.index import OK, MicrographRow
from emflow.io.inputs import InputRow
from emflow.io.motion import MotionRecord
from emflow.io.movie_spectra import movie_spectrum_path, write_movie_spectrum
from emflow.io.movies import GAIN_SUFFIX, count_eer_frames, eer_grouping, is_eer, open_movie
from emflow.io.mrc import check_pixels, write_mrc
from emflow.metadata import OpticsGroup

if TYPE_CHECKING:
    import torch

    from emflow.motion import CorrectedMovie
    from emflow.motion.frames import CleanFrames
    from emflow.motion.sum_grid import SumGrid

_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class MovieSettings:
    """The settings of correct_motion, by whose names they go; exposures in electrons per square angstrom."""

    optics: OpticsGroup
    header_pixel_size_angstrom: float
    exposure: float
    pre_exposure: float = 0.0
    total_exposure: float | None = None
    gain: Path | None = None
    gain_rotation: int = 0
    gain_flip: str = "none"
    defects: Path | None = None
    frames: int | None = None
    first_frame: int = 1
    last_frame: int | None = None
    group_frames: int = 1
    eer_upsampling: int = 1
    output_pixel_size_angstrom: float | None = None
    local: bool = True
    dose_weighting: bool = True
    unweighted: bool = False
    halves_pixel_size_angstrom: float | None = None
    half_precision: bool = False
    power_spectrum: bool = True


@dataclass(frozen=True)
class _Source:
    """A movie that was read: its used frames, how many it has, and how EER frames were grouped."""

    stack: list[NDArray[np.generic]]
    frames: int
    pixel_size_angstrom: float
    exposure: float
    grouping: int | None


@dataclass(frozen=True)
class MovieBatch:
    """Corrects the movies of one batch, whose results go to ``folder``."""

    folder: Path
    settings: MovieSettings
    gain: NDArray[np.float32] | None
    device: "torch.device"

    def correct(self, row: InputRow) -> tuple[MicrographRow, MotionRecord]:
        """Correct a movie; write its micrograph and what else is asked for.

        Raises
        ------
        BadInputError
            If the movie cannot be used.
        """
        from emflow.motion import correct_frames
        from emflow.motion.frames import motion_of
        from emflow.motion.relion_model import motion_lengths
        from emflow.motion.spectrum import has_spectrum

        settings, optics = self.settings, self.settings.optics
        source = self._read(Path(row.path))
        pixel, exposure = source.pixel_size_angstrom, source.exposure
        frames = self._clean(Path(row.path), source.stack)
        shape = frames.shape
        estimate = motion_of(
            frames,
            pixel_size_angstrom=pixel,
            exposure_electrons_per_square_angstrom=exposure,
            voltage_kilovolt=optics.voltage_kilovolt,
            local=settings.local,
            group_frames=settings.group_frames,
        )
        grid = _coarser(shape, pixel, settings.output_pixel_size_angstrom)
        halves_grid = _coarser(shape, pixel, settings.halves_pixel_size_angstrom)
        result = correct_frames(
            frames,
            estimate.field,
            pixel_size_angstrom=pixel,
            exposure_electrons_per_square_angstrom=exposure if settings.dose_weighting else None,
            first_exposure_electrons_per_square_angstrom=settings.pre_exposure
            + (settings.first_frame - 1) * exposure,
            voltage_kilovolt=optics.voltage_kilovolt,
            grid=grid,
            plain=settings.unweighted,
            halves_grid=halves_grid,
            power_exposure_electrons_per_square_angstrom=(
                exposure if settings.power_spectrum and has_spectrum(shape, pixel) else None
            ),
        )
        check_pixels(result.weighted)
        height, width = result.weighted.shape
        binning = 1.0 if grid is None else grid.binning
        target = self.folder / "micrographs" / f"{row.name}.mrc"
        half_size = pixel if halves_grid is None else pixel * halves_grid.binning
        self._write(target, result, pixel * binning, half_size)
        lengths = motion_lengths(estimate.field, pixel, exposure)
        micrograph = MicrographRow(
            name=row.name,
            status=OK,
            path=str(target.absolute()),
            height=height,
            width=width,
            optics_group=optics.name,
            pixel_size_angstrom=pixel * binning,
            voltage_kilovolt=optics.voltage_kilovolt,
            spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
            amplitude_contrast=optics.amplitude_contrast,
            motion_total_angstrom=lengths.total,
            motion_early_angstrom=lengths.early,
            motion_late_angstrom=lengths.late,
        )
        record = MotionRecord(
            name=row.name,
            path=row.path,
            frames=source.frames,
            height=shape[0],
            width=shape[1],
            degree=estimate.field.degree,
            coefficients=estimate.field.coefficients.tolist(),
            pixel_size_angstrom=pixel,
            voltage_kilovolt=optics.voltage_kilovolt,
            exposure=exposure,
            pre_exposure=settings.pre_exposure,
            binning=binning,
            first_frame=settings.first_frame,
            gain=str(settings.gain or ""),
            gain_rotation=settings.gain_rotation,
            gain_flip=settings.gain_flip,
            defects=str(settings.defects or ""),
            eer_grouping=source.grouping,
            eer_upsampling=None if source.grouping is None else settings.eer_upsampling,
            bad_pixels_yx=tuple((y, x) for y, x in np.argwhere(frames.found).tolist()),
        )
        if result.plain is not None:
            record = replace(record, unweighted=str(_beside(target, "_noDW").absolute()))
        spectrum = movie_spectrum_path(target)
        if result.power is None:
            spectrum.unlink(missing_ok=True)  # of an earlier run with other settings
        else:
            write_movie_spectrum(spectrum, result.power)
            record = replace(record, power_spectrum=str(spectrum.absolute()))
        return micrograph, record

    def _read(self, path: Path) -> _Source:
        settings = self.settings
        pixel, exposure, grouping, count = settings.optics.pixel_size_angstrom, settings.exposure, None, None
        if is_eer(path):
            if settings.total_exposure is None:
                raise BadInputError(
                    "is EER: total_exposure_electrons_per_square_angstrom is needed to group its frames"
                )
            count = count_eer_frames(path)
            # By what a whole movie has, so that all are grouped alike
            whole = settings.frames or count
            grouping = eer_grouping(whole, settings.total_exposure, exposure)
            exposure = settings.total_exposure * grouping / whole
            pixel /= settings.eer_upsampling
        with open_movie(path, eer_grouping=grouping or 1, eer_upsampling=settings.eer_upsampling) as movie:
            stated, expected = movie.pixel_size_angstrom, settings.header_pixel_size_angstrom
            check_pixel_size(stated, expected, says="the settings say")
            count = count or movie.frames
            if settings.frames is not None and count < settings.frames:
                raise BadInputError(f"has {count} frames, the others {settings.frames}")
            used = range(settings.first_frame - 1, min(settings.last_frame or movie.frames, movie.frames))
            if len(used) < 2:
                raise BadInputError(
                    f"has {movie.frames} frames: too few to begin with the {settings.first_frame}th"
                )
            return _Source([movie.read(n) for n in used], movie.frames, pixel, exposure, grouping)

    def _clean(self, path: Path, stack: list[NDArray[np.generic]]) -> "CleanFrames":
        from emflow.motion.frames import CleanFrames

        gain, (height, width) = self.gain, stack[0].shape
        if gain is not None:
            if is_eer(path) and self.settings.gain is not None:
                multiplies = self.settings.gain.suffix.lower() == GAIN_SUFFIX
                gain = fit_eer_gain(gain, (height, width), multiplies=multiplies)
            check_gain(gain, (height, width))
        defects = None
        if self.settings.defects is not None:
            try:
                defects = read_defects(self.settings.defects, (height, width))
            except BadInputError as error:
                raise BadInputError(
                    f"does not go with its defect map {self.settings.defects}, which {error}"
                ) from None
        return CleanFrames(stack, gain, defects, self.device)

    def _write(self, target: Path, result: "CorrectedMovie", pixel_size: float, half_size: float) -> None:
        images = {
            "": (result.weighted, pixel_size),
            "_noDW": (result.plain, pixel_size),
            "_even": (result.even, half_size),
            "_odd": (result.odd, half_size),
        }
        for suffix, (image, size) in images.items():
            path = _beside(target, suffix)
            if image is None:
                path.unlink(missing_ok=True)  # of an earlier run with other settings
            elif self.settings.half_precision:
                if float(np.abs(image).max()) > _LARGEST_HALF:
                    raise BadInputError(
                        "has sums too large for 16-bit floats; set motion.half_precision to false"
                    )
                write_mrc(path, image.astype(np.float16), size)
            else:
                write_mrc(path, image, size)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f"{target.stem}{suffix}.mrc")


def _coarser(shape: tuple[int, int], pixel: float, wanted: float | None) -> "SumGrid | None":
    """Return the grid of a coarser pixel size; None where none is wanted, never a finer one."""
    from emflow.motion.sum_grid import sum_grid

    return None if wanted is None else sum_grid(shape, max(1.0, wanted / pixel))
