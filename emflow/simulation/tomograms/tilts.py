"""What a microscope records of a specimen, tilt by tilt: projections, contrast transfer, damage, counts."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.ctf import ctf_2d, electron_wavelength_angstrom, interaction_radian_per_volt_angstrom
from emflow.motion.dose import damage_amplitude
from emflow.reconstruction import project
from emflow.simulation.ranges import uniform
from emflow.simulation.tomograms.ranges import TomogramRanges
from emflow.simulation.tomograms.specimen import ICE_VOLT, Specimen
from emflow.tilt_geometry import TiltGeometry

# Beyond what the defocus spreads: the damage's and the B-factor's envelopes do so, too.
_MARGIN_PIXELS = 8
_MOST_COS = math.cos(math.radians(75.0))


@dataclass(frozen=True)
class SimulatedTiltSeries:
    """The images of a tilt series, in the order of their tilt, with their truth.

    ``even`` and ``odd`` are counts of one half of the dose each, float32 (n, h, w); they are independent, and
    their sum is the recorded image, and ``expected`` what it would be without noise. ``pre_exposure`` is in
    electrons per square angstrom, as is ``exposure`` of one image; ``order`` is each
    image's place in time, from 0.
    """

    even: NDArray[np.float32]
    odd: NDArray[np.float32]
    expected: NDArray[np.float32]
    geometry: TiltGeometry
    pixel_size_angstrom: float
    voltage_kilovolt: float
    spherical_aberration_millimetre: float
    amplitude_contrast: float
    defocus_angstrom: NDArray[np.float64]
    exposure_electrons_per_square_angstrom: float
    pre_exposure_electrons_per_square_angstrom: NDArray[np.float64]
    order: NDArray[np.int64]
    nominal_axis_degrees: float = 0.0

    @property
    def nominal_tilts_degrees(self) -> NDArray[np.float64]:
        """The tilts that the stage reports, (n,)."""
        return self.geometry.y_tilt_degrees

    def contrast(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return images over their mean, less one: protein is dark."""
        return np.asarray(images / images.mean(axis=(1, 2), keepdims=True) - 1, dtype=np.float32)


def dose_symmetric_order(tilts_degrees: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return each image's place in time when tilts are taken from the middle outwards, side by side.

    Hagen, Wan and Briggs, J. Struct. Biol. 197 (2017) 191, with groups of one.
    """
    middle = tilts_degrees[np.argmin(np.abs(tilts_degrees - tilts_degrees.mean()))]
    offset = tilts_degrees - middle
    ranked = np.lexsort((offset, np.abs(offset).round(3)))
    order = np.empty(len(ranked), dtype=np.int64)
    order[ranked] = np.arange(len(ranked))
    return order


def draw_geometry(
    rng: np.random.Generator,
    ranges: TomogramRanges,
    *,
    shift_angstrom: float = 0.0,
) -> TiltGeometry:
    """Draw a tilt scheme: tilts of an even step about the lamella's own tilt, the axis, random shifts."""
    step = float(rng.choice(ranges.tilt_step_degrees))
    most = step * round(uniform(rng, ranges.max_tilt_degrees) / step)
    tilts = np.arange(-most, most + step / 2, step) + uniform(rng, ranges.lamella_tilt_degrees)
    axis = 90.0 * int(rng.integers(4)) + uniform(rng, ranges.axis_degrees)
    geometry = TiltGeometry.nominal(tilts, axis)
    return geometry.shifted(rng.uniform(-1, 1, (len(tilts), 2)) * shift_angstrom)


def record_tilt_series(
    rng: np.random.Generator,
    ranges: TomogramRanges,
    specimen: Specimen,
    geometry: TiltGeometry,
    shape: tuple[int, int],
    *,
    exposure_electrons_per_square_angstrom: float | None = None,
    device: str = "cpu",
) -> SimulatedTiltSeries:
    """Record a tilt series of a specimen: images of ``shape`` (h, w) at the specimen's pixel size."""
    pixel = specimen.pixel_size_angstrom
    total = uniform(rng, ranges.dose_electrons_per_square_angstrom)
    exposure = exposure_electrons_per_square_angstrom or total / len(geometry)
    order = dose_symmetric_order(geometry.y_tilt_degrees)
    pre_exposure = order * exposure
    defocus = uniform(rng, ranges.defocus_angstrom) + ranges.defocus_step_angstrom * rng.standard_normal(
        len(geometry)
    )
    contrast = uniform(rng, ranges.amplitude_contrast)
    efficiency = uniform(rng, ranges.detective_quantum_efficiency)
    free_path = uniform(rng, ranges.free_path_angstrom)
    b_factor = uniform(rng, ranges.b_factor_square_angstrom)
    strength = (
        uniform(rng, ranges.potential_scale)
        * 2
        * interaction_radian_per_volt_angstrom(ranges.voltage_kilovolt)
    )
    projected = project(torch.from_numpy(specimen.volts).to(device), geometry, pixel, shape).cpu().numpy()
    # The CTF spreads what lies at one side over the border: without a margin to the side across.
    margin = _delocalisation_pixels(float(defocus.max()), ranges.voltage_kilovolt, pixel)
    padded = shape[0] + 2 * margin, shape[1] + 2 * margin
    ky, kx = np.fft.fftfreq(padded[0], pixel)[:, None], np.fft.rfftfreq(padded[1], pixel)[None]
    frequency = np.hypot(ky, kx)
    halves = np.empty((2, len(geometry), *shape), dtype=np.float32)
    noiseless = np.empty((len(geometry), *shape), dtype=np.float32)
    # Ice between the faces takes electrons: the path grows as the specimen is tilted. Where there is none
    # (potential far below that of ice) the image is brighter.
    for n, image in enumerate(projected):
        transfer = ctf_2d(
            padded,
            pixel,
            defocus_u_angstrom=float(defocus[n]),
            defocus_v_angstrom=float(defocus[n]),
            defocus_angle_degrees=0.0,
            voltage_kilovolt=ranges.voltage_kilovolt,
            spherical_aberration_millimetre=ranges.spherical_aberration_millimetre,
            amplitude_contrast=contrast,
            b_factor_square_angstrom=b_factor,
        ) * damage_amplitude(frequency, float(pre_exposure[n] + exposure / 2), ranges.voltage_kilovolt)
        mean = float(image.mean())
        around = np.pad(image - mean, margin, mode="symmetric")
        wave = np.fft.irfft2(transfer * np.fft.rfft2(around), s=padded)
        wave = wave[margin : margin + shape[0], margin : margin + shape[1]]
        path = _path_angstrom(specimen, float(geometry.y_tilt_degrees[n]))
        electrons = exposure * pixel**2 * efficiency * math.exp(-path / free_path)
        expected = electrons * np.clip(1 + strength * wave, 0.02, 6)
        noiseless[n] = expected / efficiency
        for half in halves:
            half[n] = rng.poisson(expected / 2) / efficiency
    return SimulatedTiltSeries(
        even=halves[0],
        odd=halves[1],
        expected=noiseless,
        geometry=geometry,
        pixel_size_angstrom=pixel,
        voltage_kilovolt=ranges.voltage_kilovolt,
        spherical_aberration_millimetre=ranges.spherical_aberration_millimetre,
        amplitude_contrast=contrast,
        defocus_angstrom=np.asarray(defocus),
        exposure_electrons_per_square_angstrom=exposure,
        pre_exposure_electrons_per_square_angstrom=np.asarray(pre_exposure, dtype=np.float64),
        order=order,
        nominal_axis_degrees=float(geometry.z_rot_degrees.mean()),
    )


def with_stated_axis(
    rng: np.random.Generator, series: SimulatedTiltSeries, largest_error_degrees: float
) -> SimulatedTiltSeries:
    """Return a series whose stated tilt axis is wrong by up to so many degrees."""
    error = largest_error_degrees * (2 * rng.random() - 1)
    return replace(series, nominal_axis_degrees=series.nominal_axis_degrees + error)


def _delocalisation_pixels(
    defocus_angstrom: float, voltage_kilovolt: float, pixel_size_angstrom: float
) -> int:
    """Return how far an image's finest detail is spread: wavelength times defocus times frequency."""
    finest = 0.5 / pixel_size_angstrom
    spread = electron_wavelength_angstrom(voltage_kilovolt) * defocus_angstrom * finest
    return math.ceil(spread / pixel_size_angstrom) + _MARGIN_PIXELS


def _path_angstrom(specimen: Specimen, tilt_degrees: float) -> float:
    """Return how much ice the beam crosses on average, in angstrom."""
    ice = float((specimen.volts > -0.5 * ICE_VOLT).mean()) * specimen.volts.shape[0]
    return float(ice * specimen.pixel_size_angstrom / max(_MOST_COS, math.cos(math.radians(tilt_degrees))))


def misaligned(
    rng: np.random.Generator, geometry: TiltGeometry, shift_angstrom: float, axis_degrees: float
) -> TiltGeometry:
    """Return a geometry with errors: normal ones of each shift, one of the axis."""
    shifts = geometry.shifts_angstrom + shift_angstrom * rng.standard_normal((len(geometry), 2))
    return replace(geometry.shifted(shifts), z_rot_degrees=geometry.z_rot_degrees + axis_degrees)
