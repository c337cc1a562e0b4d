"""What estimate_ctf does with micrographs of one microscope and size: read, fit, write what comes of it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emflow.cli.progress import say
from emflow.errors import BadInputError, SettingError
from emflow.io.ctf_pictures import ctf_picture_path, write_ctf_picture
from emflow.io.index import FAILED, MicrographRow
from emflow.io.movie_spectra import movie_spectrum_path, read_movie_spectrum
from emflow.io.mrc import read_mrc
from emflow.metadata import DOUBTFUL_CTF, OpticsGroup

if TYPE_CHECKING:
    import torch

    from emflow.ctf_estimation import CtfEstimate, PowerSpectrum


@dataclass(frozen=True)
class _Read:
    """A spectrum, of the movie or the micrograph of a row, and the pixel size of an image that has it."""

    row: MicrographRow
    spectrum: "PowerSpectrum"
    pixel_size_angstrom: float


@dataclass(frozen=True)
class CtfBatch:
    """Fits the CTFs of a batch, whose pictures go below ``folder``; the settings are estimate_ctf's."""

    folder: Path
    source: str
    device: "torch.device"
    defocus_range_angstrom: tuple[float, float]
    max_astigmatism_angstrom: float
    phase_shift_range_degrees: tuple[float, float] | None
    resolution_range_angstrom: tuple[float, float]

    def fit(self, rows: Sequence[MicrographRow]) -> list[MicrographRow]:
        """Return the rows of micrographs of one microscope and size with their CTFs; write their pictures.

        Where the fit of a movie's spectrum is doubtful, its micrograph is fitted as well and the better one
        kept: particles where ice shows no rings are seen best in the sum of all frames.

        Raises
        ------
        SettingError
            If the settings leave nothing to fit.
        """
        fits = {} if self.source == "micrograph" else self._fits(_movie_spectra(rows))
        sure = {name for name, (fit, _) in fits.items() if _merit(fit) >= DOUBTFUL_CTF}
        spectra, failed = self._micrograph_spectra([row for row in rows if row.name not in sure])
        for name, (fit, step) in self._fits(spectra).items():
            if name not in fits or _merit(fit) > _merit(fits[name][0]):
                fits[name] = fit, step
        for name, (fit, step) in fits.items():
            write_ctf_picture(ctf_picture_path(self.folder, name), fit.image, step)
        left = [row for row in failed if row.name not in fits]
        for row in left:
            say("estimate_ctf", f"left out: {row.reason}")
        return left + [_filled(row, fits[row.name][0]) for row in rows if row.name in fits]

    def _micrograph_spectra(self, rows: Sequence[MicrographRow]) -> tuple[list[_Read], list[MicrographRow]]:
        """Return the spectra of micrographs, and the rows of those that could not be read."""
        from emflow.ctf_estimation import power_spectrum

        spectra, failed = [], []
        for row in rows:
            pixel_size = optics_of(row).pixel_size_angstrom
            try:
                image = read_mrc(Path(row.path))
                spectrum = power_spectrum(image, pixel_size_angstrom=pixel_size, device=self.device)
            except (BadInputError, ValueError) as error:
                failed.append(dataclasses.replace(row, status=FAILED, reason=f"{row.path} {error}"))
            else:
                spectra.append(_Read(row, spectrum, pixel_size))
        return spectra, failed

    def _fits(self, spectra: Sequence[_Read]) -> "dict[str, tuple[CtfEstimate, float]]":
        """Return by name each spectrum's fit and frequency step; spectra of one kind are fitted together."""
        from emflow.ctf_estimation import fit_power_spectra

        kinds: dict[tuple[int, float, float], list[_Read]] = {}
        for one in spectra:
            kind = (one.spectrum.radius, one.spectrum.frequency_step, one.pixel_size_angstrom)
            kinds.setdefault(kind, []).append(one)
        fits: dict[str, tuple[CtfEstimate, float]] = {}
        for (_, step, pixel_size), some in kinds.items():
            optics = optics_of(some[0].row)
            try:
                estimates = fit_power_spectra(
                    [one.spectrum for one in some],
                    pixel_size_angstrom=pixel_size,
                    voltage_kilovolt=optics.voltage_kilovolt,
                    spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
                    amplitude_contrast=optics.amplitude_contrast,
                    defocus_range_angstrom=self.defocus_range_angstrom,
                    max_astigmatism_angstrom=self.max_astigmatism_angstrom,
                    phase_shift_range_degrees=self.phase_shift_range_degrees,
                    resolution_range_angstrom=self.resolution_range_angstrom,
                    device=self.device,
                )
            except ValueError as error:
                raise SettingError(
                    f"CTF of optics group {optics.name}: {error}; change section ctf of config.yaml, "
                    "or set ctf.enabled: false"
                ) from None
            fits |= {one.row.name: (fit, step) for one, fit in zip(some, estimates, strict=True)}
        return fits


def _movie_spectra(rows: Sequence[MicrographRow]) -> list[_Read]:
    """Return the spectra that correct_motion left; of a damaged one it is told."""
    spectra = []
    for row in rows:
        path = movie_spectrum_path(Path(row.path))
        # Beside an imported micrograph a file of that name is somebody else's.
        if row.motion_total_angstrom is None or not path.is_file():
            continue
        try:
            spectra.append(_Read(row, *read_movie_spectrum(path)))
        except BadInputError as error:
            say("estimate_ctf", f"{path} {error}: the micrograph is fitted instead")
    return spectra


def _merit(fit: "CtfEstimate") -> float:
    return fit.ctf.figure_of_merit or 0.0


def optics_of(row: MicrographRow) -> OpticsGroup:
    """Return what the fit needs to know of the microscope, or refuse."""
    if (
        row.pixel_size_angstrom is None
        or row.voltage_kilovolt is None
        or row.spherical_aberration_millimetre is None
    ):
        raise SettingError(f"{row.name}: a CTF needs pixel size, voltage and Cs; set them in config.yaml")
    contrast = 0.1 if row.amplitude_contrast is None else row.amplitude_contrast
    return OpticsGroup(
        row.optics_group,
        row.pixel_size_angstrom,
        row.voltage_kilovolt,
        row.spherical_aberration_millimetre,
        contrast,
    )


def _filled(row: MicrographRow, estimate: "CtfEstimate") -> MicrographRow:
    ctf = estimate.ctf
    return dataclasses.replace(
        row,
        defocus_u_angstrom=round(ctf.defocus_u_angstrom, 2),
        defocus_v_angstrom=round(ctf.defocus_v_angstrom, 2),
        defocus_angle_degrees=round(ctf.defocus_angle_degrees, 3),
        phase_shift_degrees=round(ctf.phase_shift_degrees, 3),
        ctf_max_resolution_angstrom=round(ctf.max_resolution_angstrom or 30.0, 3),
        ctf_figure_of_merit=round(ctf.figure_of_merit or 0.0, 5),
        ctf_defocus_error_angstrom=round(estimate.defocus_error_angstrom, 1),
        ctf_angle_error_degrees=round(estimate.angle_error_degrees, 2),
    )
