"""Simulated movies: a specimen that drifts and deforms in the beam, frame by frame, with known truth."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from emflow.ctf import ctf_2d, interaction_radian_per_volt_angstrom, spatial_frequencies
from emflow.simulation.motion import MotionTruth, draw_motion, evaluation_grid

# The specimen is drawn twice as finely as it is recorded: interpolation then costs no accuracy.
_OVERSAMPLING = 2
# Phase contrast is linear up to here; intensity cannot fall below nothing.
_SATURATION = 0.9


@dataclass(frozen=True)
class SimulatedMovie:
    """A movie as a camera records it, and what is known of it.

    ``frames`` uint16 (frames, h, w) counts before the gain is applied; ``gain`` float32 (h, w) multiplies
    them, zero where ``listed_bad``; ``unlisted_bad`` are pixels that only their counts betray.
    ``centres_yx`` (particles, 2) are those that lie in the picture, in pixels of the first frame.
    """

    frames: NDArray[np.uint16]
    gain: NDArray[np.float32]
    listed_bad: NDArray[np.bool_]
    unlisted_bad: NDArray[np.bool_]
    truth: MotionTruth
    pixel_size_angstrom: float
    voltage_kilovolt: float
    exposure_electrons_per_square_angstrom: float
    centres_yx: NDArray[np.float64]


def simulate_movie(
    seed: int,
    *,
    shape: tuple[int, int] = (1024, 1024),
    frames: int = 12,
    pixel_size_angstrom: float = 1.0,
    electrons_per_pixel: float = 1.0,
    drift_angstrom: float = 10.0,
    local_angstrom: float = 4.0,
    jitter_pixels: float = 0.1,
    voltage_kilovolt: float = 300.0,
    defocus_angstrom: float = 15000.0,
    particle_diameter_angstrom: float = 140.0,
    particle_coverage: float = 0.25,
    carbon_angstrom: float = 0.0,
    b_factor_square_angstrom: float = 80.0,
    gain_deviation: float = 0.03,
    dead_columns: int = 1,
    listed_bad_pixels: int = 20,
    unlisted_bad_pixels: int = 20,
    camera_seed: int | None = None,
) -> SimulatedMovie:
    """Draw a movie of globular particles in ice or on thin carbon; the same arguments give the same bytes.

    Electrons are counted perfectly (Poisson). Damage fades the specimen with the exposure as Grant and
    Grigorieff measured it (eLife 4 (2015) e06980); amorphous ice adds no image that lasts from frame to
    frame.

    Parameters
    ----------
    seed
        Of everything in it.
    shape
        (h, w) in pixels.
    frames
        How many.
    pixel_size_angstrom, electrons_per_pixel
        The latter a frame.
    drift_angstrom, local_angstrom, jitter_pixels
        As `draw_motion`.
    voltage_kilovolt, defocus_angstrom, b_factor_square_angstrom
        Of the microscope; the envelope is exp(-B k^2 / 4).
    particle_diameter_angstrom, particle_coverage
        Globules of mass density 0.81 Da per cubic angstrom; the coverage is of the area, by discs.
    carbon_angstrom
        Thickness of a carbon film with atoms at random.
    gain_deviation, dead_columns, listed_bad_pixels, unlisted_bad_pixels
        Of the detector; the dead columns are listed as well.
    camera_seed
        Of the detector, where several movies are to have the same.
    """
    from emflow.motion.dose import damage_amplitude

    rng = np.random.default_rng(seed)
    truth = draw_motion(
        rng,
        shape=shape,
        frames=frames,
        drift_pixels=drift_angstrom / pixel_size_angstrom,
        local_pixels=local_angstrom / pixel_size_angstrom,
        jitter_pixels=jitter_pixels,
    )
    reach = np.abs(truth.displacement(evaluation_grid(shape))).max() * 1.5 + 16
    margin = math.ceil(reach)
    canvas = _fast(shape[0] + 2 * margin), _fast(shape[1] + 2 * margin)
    spectrum, centres = _specimen(
        rng,
        canvas,
        pixel_size_angstrom,
        voltage_kilovolt,
        particle_diameter_angstrom,
        particle_coverage,
        carbon_angstrom,
    )
    spectrum *= 2 * ctf_2d(
        canvas,
        pixel_size_angstrom,
        defocus_u_angstrom=defocus_angstrom * 1.01,
        defocus_v_angstrom=defocus_angstrom * 0.99,
        defocus_angle_degrees=30.0,
        voltage_kilovolt=voltage_kilovolt,
        spherical_aberration_millimetre=2.7,
        amplitude_contrast=0.1,
        b_factor_square_angstrom=b_factor_square_angstrom,
    )
    k_y, k_x = spatial_frequencies(canvas, pixel_size_angstrom)
    frequency = np.sqrt(k_x**2 + k_y**2).astype(np.float32)
    dose = electrons_per_pixel / pixel_size_angstrom**2

    camera = rng if camera_seed is None else np.random.default_rng(camera_seed)
    gain = (1 + gain_deviation * camera.standard_normal(shape)).astype(np.float32).clip(0.5, 2)
    listed = np.zeros(shape, dtype=bool)
    listed[:, camera.integers(0, shape[1], dead_columns)] = True
    listed.reshape(-1)[camera.integers(0, listed.size, listed_bad_pixels)] = True
    unlisted = np.zeros(shape, dtype=bool)
    unlisted.reshape(-1)[camera.integers(0, listed.size, unlisted_bad_pixels)] = True
    unlisted &= ~listed
    hot_rate = electrons_per_pixel * camera.uniform(4, 40, int(unlisted.sum()))
    hot_rate[::4] = 0  # every fourth is dead instead

    ramp = 1 + 0.05 * rng.uniform(-1, 1) * np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
    places = _Places(truth, margin, canvas)
    counts = np.empty((frames, *shape), dtype=np.uint16)
    for frame in range(frames):
        faded = spectrum * damage_amplitude(frequency, (frame + 0.5) * dose, voltage_kilovolt)
        contrast = places.record(faded, frame)
        expected = (1 + _SATURATION * np.tanh(contrast / _SATURATION)) * ramp * electrons_per_pixel
        raw = rng.poisson(np.maximum(expected, 0) / gain)
        raw[listed] = 0
        raw[unlisted] = rng.poisson(hot_rate)
        counts[frame] = raw
    gain[listed] = 0
    centres -= margin
    seen = ((centres > -0.5) & (centres < np.asarray(shape) - 0.5)).all(axis=1)
    return SimulatedMovie(
        counts,
        gain,
        listed,
        unlisted,
        truth,
        pixel_size_angstrom,
        voltage_kilovolt,
        dose,
        centres[seen],
    )


def _specimen(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    pixel: float,
    voltage_kilovolt: float,
    diameter_angstrom: float,
    coverage: float,
    carbon_angstrom: float,
) -> tuple[NDArray[np.complex64], NDArray[np.float64]]:
    """Return the Fourier transform (h, w//2+1) of the specimen's phase shift in radian, and its centres."""
    sigma = interaction_radian_per_volt_angstrom(voltage_kilovolt)
    phase = np.zeros(canvas, dtype=np.float32)
    radius = diameter_angstrom / pixel / 2
    count = round(coverage * canvas[0] * canvas[1] / (math.pi * radius**2))
    centres = rng.uniform(0, 1, (count, 2)) * canvas
    for centre in centres:
        _add_globule(phase, rng, centre, radius, pixel, sigma)
    if carbon_angstrom:
        # Independent atoms, 0.095 per cubic angstrom of 120 V angstrom^3, packed to 0.3 of a gas's variance.
        deviation = sigma * 120 * math.sqrt(0.3 * 0.095 * carbon_angstrom) / pixel
        phase += np.float32(deviation) * rng.standard_normal(canvas, dtype=np.float32)
    return np.asarray(scipy.fft.rfft2(phase), dtype=np.complex64), centres


def _add_globule(
    phase: NDArray[np.float32],
    rng: np.random.Generator,
    centre: NDArray[np.float64],
    radius: float,
    pixel: float,
    sigma: float,
) -> None:
    """Add a particle: atoms at random in an ellipsoid, in lumps as domains and helices make them."""
    semi = radius * rng.uniform(0.7, 1.0, 3)
    lumps = rng.normal(size=(60, 3))
    lumps *= (rng.random(60) ** (1 / 3) / np.linalg.norm(lumps, axis=1))[:, None]
    # Protein over the ice that it displaces: about 1.3 V in projection; 8 cubic angstrom a residue's quarter.
    volume = 4 / 3 * math.pi * float(np.prod(semi)) * pixel**3
    atoms = min(int(volume / 30), 40000)
    spread = 3.5 / pixel
    where = lumps[rng.integers(0, 60, atoms)] * semi * 0.85 + spread * rng.normal(size=(atoms, 3))
    y = np.rint(centre[0] + where[:, 0]).astype(int) % phase.shape[0]
    x = np.rint(centre[1] + where[:, 1]).astype(int) % phase.shape[1]
    weight = np.float32(sigma * 1.3 * volume / atoms / pixel**2)
    np.add.at(phase, (y, x), weight)


class _Places:
    """Where each recorded pixel lies on the specimen, frame by frame."""

    def __init__(self, truth: MotionTruth, margin: int, canvas: tuple[int, int]) -> None:
        self._truth, self._margin, self._canvas = truth, margin, canvas
        height, width = truth.shape
        # The field is smooth: it is worked out on a coarse grid and interpolated.
        self._nodes = [np.linspace(-0.1, 1.1, 25) * side for side in truth.shape]
        grid = np.stack(np.meshgrid(*self._nodes, indexing="ij"), -1).reshape(-1, 2)
        # Which first-frame point is recorded at each node? The field changes slowly, so iteration converges.
        origin = np.broadcast_to(grid, (len(truth.global_yx), *grid.shape)).copy()
        for _ in range(6):
            local = np.stack([truth.local(points)[frame] for frame, points in enumerate(origin)])
            origin = grid - truth.global_yx[:, None] - local
        self._origin = origin.reshape(len(origin), 25, 25, 2)
        self._y, self._x = np.arange(height), np.arange(width)

    def record(self, spectrum: NDArray[np.complex64], frame: int) -> NDArray[np.float32]:
        """Return what lies under each pixel (h, w) of a frame, of a specimen's transform."""
        fine = (self._canvas[0] * _OVERSAMPLING, self._canvas[1] * _OVERSAMPLING)
        padded = np.zeros((fine[0], fine[1] // 2 + 1), dtype=np.complex64)
        rows, columns = self._canvas[0] // 2, self._canvas[1] // 2
        padded[:rows, :columns] = spectrum[:rows, :columns]
        padded[fine[0] - rows + 1 :, :columns] = spectrum[rows + 1 :, :columns]
        image = torch.from_numpy(scipy.fft.irfft2(padded, s=fine) * np.float32(_OVERSAMPLING**2))
        from scipy.interpolate import RectBivariateSpline

        coordinates = []
        for axis in (1, 0):
            spline = RectBivariateSpline(*self._nodes, self._origin[frame, ..., axis])
            place = (spline(self._y, self._x).astype(np.float32) + self._margin) * _OVERSAMPLING
            coordinates.append(torch.from_numpy(2 * place / np.float32(fine[axis] - 1) - 1))
        sampled = torch.nn.functional.grid_sample(
            image[None, None],
            torch.stack(coordinates, -1)[None],
            mode="bicubic",
            align_corners=True,
        )
        return np.asarray(sampled[0, 0].numpy())


def _fast(size: int) -> int:
    result = int(scipy.fft.next_fast_len(size, real=True))
    while result % 2:
        result = int(scipy.fft.next_fast_len(result + 1, real=True))
    return result
