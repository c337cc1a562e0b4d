"""Defocus of the images of a tilt series: Thon rings of patches, brought to one defocus by the known tilt.

A tilted specimen has another defocus on either side of the tilt axis. Patches of like defocus are taken
together, and their spectra are stretched so that their rings fall on those of the image's middle: a phase
``pi lambda f k^2`` stands at ``k sqrt(f0 / f)`` where the defocus is f instead of f0 (as Mindell and
Grigorieff, J. Struct. Biol. 142 (2003) 334, do for tilted crystals, here spectrum by spectrum).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from emflow.ctf_estimation import CtfEstimate, PowerSpectrum, fit_power_spectra, power_spectrum
from emflow.metadata import DOUBTFUL_CTF, OpticsGroup

PATCH_ANGSTROM = 1024.0
# Patches whose defocus differs by less are one.
_STEP_ANGSTROM = 400.0
# Images tilted less than this have rings enough to say where the others' are.
_LOW_TILT_DEGREES = 25.0
# How far a tilt's defocus may lie from that of the series.
_SERIES_RANGE_ANGSTROM = 8000.0
_COARSEST_ANGSTROM, _FINEST_ANGSTROM = 40.0, 7.0


@dataclass(frozen=True)
class TiltedImage:
    """What the estimate needs of an image: its pixels (h, w) come when asked for."""

    tilt_degrees: float
    axis_degrees: float
    spectra: list[tuple[float, PowerSpectrum]]  # by height: how far above the axis in defocus, in angstrom

    @classmethod
    def of(
        cls,
        image: NDArray[np.float32],
        pixel_size_angstrom: float,
        tilt_degrees: float,
        axis_degrees: float,
        *,
        hand: int,
        device: torch.device | str = "cpu",
    ) -> "TiltedImage":
        """Cut an image into patches and take the power spectra of those of like defocus.

        Parameters
        ----------
        hand
            RELION's rlnTomoHand: with it defocus grows along z, against it it falls.

        Raises
        ------
        ValueError
            If the image is too small, constant, or has pixels that are not finite.
        """
        side = int(min(*image.shape, max(64, PATCH_ANGSTROM / pixel_size_angstrom)))
        groups: dict[int, list[NDArray[np.float32]]] = {}
        for y in _origins(image.shape[0], side):
            for x in _origins(image.shape[1], side):
                middle = np.array([x + side / 2 - image.shape[1] / 2, y + side / 2 - image.shape[0] / 2])
                point = middle * pixel_size_angstrom
                offset = defocus_offset_angstrom(point, tilt_degrees, axis_degrees, hand)
                patch = image[y : y + side, x : x + side]
                groups.setdefault(round(offset / _STEP_ANGSTROM), []).append(patch)
        spectra = [
            (
                step * _STEP_ANGSTROM,
                power_spectrum(
                    np.stack(patches),
                    pixel_size_angstrom=pixel_size_angstrom,
                    tile_angstrom=PATCH_ANGSTROM,
                    device=device,
                ),
            )
            for step, patches in sorted(groups.items())
        ]
        return cls(tilt_degrees, axis_degrees, spectra)

    def spectrum(self, defocus_angstrom: float | None) -> PowerSpectrum:
        """Return the image's power spectrum, rings brought to the middle's defocus where that is known."""
        total: NDArray[np.float64] | None = None
        tiles = 0
        for offset, spectrum in self.spectra:
            power = spectrum.power.astype(np.float64)
            if defocus_angstrom is not None:
                power = stretched(power, math.sqrt(defocus_angstrom / max(1000.0, defocus_angstrom + offset)))
            total = power * spectrum.tiles if total is None else total + power * spectrum.tiles
            tiles += spectrum.tiles
        if total is None:
            raise ValueError("an image without a patch")
        step = self.spectra[0][1].frequency_step
        return PowerSpectrum((total / tiles).astype(np.float32), step, tiles)


def defocus_offset_angstrom(
    point_xy_angstrom: NDArray[np.float64], tilt_degrees: float, axis_degrees: float, hand: int
) -> float:
    """Return by how much defocus at a point of the image differs from that at its middle.

    A point of a thin specimen that is seen ``u`` across the tilt axis lies ``-u tan(tilt)`` along the beam,
    and RELION 5 adds ``hand`` times that to the defocus (``src/jaz/tomography/tomogram.cpp``, getCtf).
    """
    angle = math.radians(axis_degrees)
    across = float(point_xy_angstrom[0]) * math.cos(angle) + float(point_xy_angstrom[1]) * math.sin(angle)
    return -hand * across * math.tan(math.radians(tilt_degrees))


def stretched(power: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Return a half-plane power spectrum (2 r + 1, r + 1) read at ``factor`` times each frequency."""
    radius = power.shape[1] - 1
    ky, kx = np.mgrid[-radius : radius + 1, 0 : radius + 1].astype(np.float64)
    read = ndimage.map_coordinates(power, [ky * factor + radius, kx * factor], order=1, mode="nearest")
    return np.asarray(read)


def _origins(side: int, patch: int) -> list[int]:
    steps = max(1, math.ceil(2 * (side - patch) / patch)) if side > patch else 0
    return [round(step * (side - patch) / max(steps, 1)) for step in range(steps + 1)]


def fit_series(
    images: Sequence[TiltedImage],
    optics: OpticsGroup,
    *,
    defocus_range_angstrom: tuple[float, float],
    device: torch.device | str = "cpu",
) -> list[CtfEstimate]:
    """Estimate the CTF of every image of a series.

    The little tilted images are fitted first, over the whole range; where they agree tells where the
    others' rings are looked for. An image whose own rings show nothing keeps its low figure of merit.

    Raises
    ------
    ValueError
        If the pixel size leaves no rings between 40 and 7 A.
    """
    finest = max(_FINEST_ANGSTROM, 2.3 * optics.pixel_size_angstrom)

    def fit(spectra: list[PowerSpectrum], limits: tuple[float, float]) -> list[CtfEstimate]:
        return fit_power_spectra(
            spectra,
            pixel_size_angstrom=optics.pixel_size_angstrom,
            voltage_kilovolt=optics.voltage_kilovolt,
            spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
            amplitude_contrast=optics.amplitude_contrast,
            defocus_range_angstrom=limits,
            max_astigmatism_angstrom=1500.0,
            resolution_range_angstrom=(_COARSEST_ANGSTROM, finest),
            device=device,
        )

    low = [image for image in images if abs(image.tilt_degrees) <= _LOW_TILT_DEGREES] or list(images)
    first = fit([image.spectrum(None) for image in low], defocus_range_angstrom)
    middle = series_defocus_angstrom(first)
    limits = (
        max(defocus_range_angstrom[0], middle - _SERIES_RANGE_ANGSTROM),
        min(defocus_range_angstrom[1], middle + _SERIES_RANGE_ANGSTROM),
    )
    return fit([image.spectrum(middle) for image in images], limits)


def series_defocus_angstrom(estimates: Sequence[CtfEstimate]) -> float:
    """Return the median defocus of the estimates that can be trusted, or of all where none can."""
    good = [one for one in estimates if (one.ctf.figure_of_merit or 0) >= DOUBTFUL_CTF]
    chosen = good or list(estimates)
    return float(np.median([(one.ctf.defocus_u_angstrom + one.ctf.defocus_v_angstrom) / 2 for one in chosen]))
