"""One simulated micrograph: particles and contaminants in ice, imaged and counted."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from emflow.ctf import ctf_2d, interaction_radian_per_volt_angstrom, spatial_frequencies
from emflow.metadata import Ctf, OpticsGroup
from emflow.simulation.contaminants import Layers, carbon_texture, contaminants
from emflow.simulation.detector import Detector, detect, draw_faults
from emflow.simulation.fields import offsets, smooth_field, window
from emflow.simulation.library import BOX, LEVELS, ParticleLibrary, rotation_matrices, splat
from emflow.simulation.placement import draw_directions, orientation_modes, place
from emflow.simulation.ranges import SimulationRanges, log_uniform, uniform

# Larger than this many pixels across, particles are projected one by one from their blobs.
_LARGEST_CACHED = 44.0
# Phase contrast is linear up to here; beyond, it saturates, as intensity cannot fall below nothing.
_SATURATION = 0.9


@dataclass(frozen=True)
class Scene:
    """A simulated micrograph and all that is known of it.

    ``image`` float32 (h, w) in detector counts, protein dark; ``clean`` its expectation, without shot noise
    and without the detector's faults; ``even`` and ``odd`` two exposures of half the dose whose sum is
    ``image`` (None unless asked for). ``centres_yx`` float64 (n, 2): centres of mass of the labelled
    particles in pixels. ``junk`` bool (h, w). ``diameter_pixels`` is the first species' true diameter.
    ``snr`` is the particles' signal over the noise, in variances (nan without particles), and
    ``contrast`` what the particles' potential was multiplied by.
    """

    image: NDArray[np.float32]
    clean: NDArray[np.float32]
    even: NDArray[np.float32] | None
    odd: NDArray[np.float32] | None
    centres_yx: NDArray[np.float64]
    diameter_pixels: float
    pixel_size_angstrom: float
    junk: NDArray[np.bool_]
    ctf: Ctf
    optics: OpticsGroup
    dose_electrons_per_square_angstrom: float
    ice_thickness_angstrom: float
    snr: float
    contrast: float
    species: tuple[str, ...]


def draw_scene(
    seed: int,
    *,
    shape: tuple[int, int],
    library: ParticleLibrary,
    ranges: SimulationRanges | None = None,
    pixel_size_angstrom: float | None = None,
    diameter_pixels: float | None = None,
    halves: bool = False,
) -> Scene:
    """Draw one micrograph; the same arguments give the same bytes.

    Parameters
    ----------
    seed
        Of everything in the scene.
    shape
        (h, w) in pixels.
    library
        The structures to draw from.
    ranges
        What to draw at random and how widely; the defaults when None.
    pixel_size_angstrom, diameter_pixels
        With both, a structure of that size is taken, or rescaled to it. With one, the structure drawn sets
        the other. With neither, the diameter is ``ranges.pixels_per_diameter`` times a draw from
        ``ranges.diameter_error``: the scale at which the picker works.
    halves
        Whether to give two exposures of half the dose as well.

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    ranges = SimulationRanges() if ranges is None else ranges
    if min(shape) < 16 or not all(v is None or v > 0 for v in (pixel_size_angstrom, diameter_pixels)):
        raise ValueError(f"shape {shape}, pixel size {pixel_size_angstrom}, diameter {diameter_pixels}")
    rng = np.random.default_rng(seed)

    # The particle and the scale
    wanted = None
    if pixel_size_angstrom is not None and diameter_pixels is not None:
        wanted = pixel_size_angstrom * diameter_pixels
    first = library.draw(rng, wanted)
    structure = library.structure(first)
    rescale = uniform(rng, ranges.rescale)
    diameter = structure.diameter_angstrom * (rescale if structure.rescalable else 1.0)
    if wanted is not None:
        diameter = wanted
    if pixel_size_angstrom is not None:
        pixel = pixel_size_angstrom
        diameter_pixels = diameter / pixel
    else:
        if diameter_pixels is None:
            diameter_pixels = ranges.pixels_per_diameter * uniform(rng, ranges.diameter_error)
        pixel = diameter / diameter_pixels

    # The microscope
    voltage = float(rng.choice(ranges.voltages_kilovolt, p=ranges.voltage_weights))
    corrected = rng.random() < ranges.corrected_probability
    cs = uniform(rng, ranges.corrected_spherical_aberration_millimetre)
    optics = OpticsGroup(
        name="simulated",
        pixel_size_angstrom=pixel,
        voltage_kilovolt=voltage,
        spherical_aberration_millimetre=cs if corrected else ranges.spherical_aberration_millimetre,
        amplitude_contrast=uniform(rng, ranges.amplitude_contrast),
    )
    defocus = log_uniform(rng, ranges.defocus_angstrom)
    astigmatism = min(uniform(rng, ranges.astigmatism_angstrom), defocus / 2)
    phase_plate = rng.random() < ranges.phase_plate_probability
    phase_shift = uniform(rng, ranges.phase_shift_degrees)
    ctf = Ctf(
        defocus_u_angstrom=defocus + astigmatism / 2,
        defocus_v_angstrom=defocus - astigmatism / 2,
        defocus_angle_degrees=uniform(rng, (0.0, 180.0)),
        phase_shift_degrees=phase_shift if phase_plate else 0.0,
    )
    b_factor = uniform(rng, ranges.b_factor_square_angstrom)
    drift = uniform(rng, ranges.drift_angstrom) if rng.random() < ranges.drift_probability else 0.0
    drift_angle = uniform(rng, (0.0, math.pi))
    dose = log_uniform(rng, ranges.dose_electrons_per_square_angstrom)
    detector = Detector.draw(rng, ranges, pixel)

    # The canvas reaches beyond the image, so that particles and fringes cross its edge, and nothing wraps
    # round from the other side.
    margin = math.ceil(min(max(0.6 * diameter_pixels, 8), 0.5 * min(shape) + 8))
    canvas = (_fast(shape[0] + 2 * margin), _fast(shape[1] + 2 * margin))
    inner = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
    sigma = interaction_radian_per_volt_angstrom(voltage)
    layers = Layers(
        phase=np.zeros(canvas, dtype=np.float32),
        log_transmission=np.zeros(canvas, dtype=np.float32),
        junk=np.zeros(canvas, dtype=bool),
        no_particles=np.zeros(canvas, dtype=bool),
        pixel_size_angstrom=pixel,
        diameter_pixels=diameter_pixels,
        radian_per_volt_angstrom=sigma,
        particle_phase=sigma * 1.3 * diameter,
    )
    for probability, add in contaminants(ranges):
        if rng.random() < probability:
            add(layers, rng, ranges)
    if rng.random() < ranges.support_film_probability:
        film = uniform(rng, ranges.support_film_angstrom)
        layers.phase += carbon_texture(rng, canvas, film, pixel, sigma)

    # Particles: labelled ones, then what must not be picked
    particles = np.zeros(canvas, dtype=np.float32)
    species = [(first, diameter)]
    if rng.random() < ranges.second_species_probability:
        second = library.draw(rng)
        found = library.structure(second)
        species.append((second, diameter * uniform(rng, (0.75, 1.25)) if found.rescalable else diameter))
    empty = rng.random() < ranges.empty_probability
    coverage = log_uniform(rng, ranges.coverage)
    distance = uniform(rng, ranges.minimum_distance_diameters) * diameter_pixels
    disc = math.pi / 4 * diameter_pixels**2
    count = 0 if empty else max(1, int(rng.poisson(coverage * canvas[0] * canvas[1] / disc)))
    overlap = uniform(rng, ranges.overlap_fraction) if rng.random() < ranges.overlap_probability else 0.0
    centres = place(rng, canvas, count, distance, layers.no_particles, 0.0, overlap)
    kind = (rng.random(len(centres)) < 0.4) if len(species) > 1 else np.zeros(len(centres), dtype=bool)
    for which, (index, size) in enumerate(species):
        _add_particles(
            particles,
            rng,
            library,
            index,
            centres[kind == which],
            size,
            pixel,
            orientation_modes(rng, ranges),
        )
    unlabelled = np.zeros(canvas, dtype=np.float32)
    if rng.random() < ranges.distractor_probability:
        _add_distractors(unlabelled, rng, library, diameter, pixel, disc, layers.no_particles)
    if rng.random() < ranges.aggregate_probability:
        _add_aggregates(unlabelled, layers, rng, ranges, library, species[0])
    particles *= sigma

    # Imaging, with the image formation linear in the phase; MTF and envelope belong to the signal alone
    k_y, k_x = spatial_frequencies(canvas, pixel)
    k_square = (k_x**2 + k_y**2).astype(np.float32)
    frequency = np.sqrt(k_square)
    signal_transfer = ctf_2d(
        canvas,
        pixel,
        defocus_u_angstrom=ctf.defocus_u_angstrom,
        defocus_v_angstrom=ctf.defocus_v_angstrom,
        defocus_angle_degrees=ctf.defocus_angle_degrees,
        voltage_kilovolt=voltage,
        spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
        amplitude_contrast=optics.amplitude_contrast,
        phase_shift_degrees=ctf.phase_shift_degrees,
        b_factor_square_angstrom=b_factor,
    )
    signal_transfer *= 2 * detector.transfer(frequency)
    if drift:
        along = k_x * math.cos(drift_angle) + k_y * math.sin(drift_angle)
        signal_transfer *= np.sinc(along * drift).astype(np.float32)
    signal = scipy.fft.irfft2(scipy.fft.rfft2(particles) * signal_transfer, s=canvas)

    # Losses to inelastic scattering, which an energy filter takes away: fewer electrons, more noise
    thickness = max(log_uniform(rng, ranges.ice_thickness_angstrom), diameter)
    free_path = ranges.mean_free_path_angstrom * (voltage / 300.0) ** 0.6
    electrons = dose * pixel**2 * math.exp(-thickness / free_path)
    noise_transfer = detector.noise_transfer(frequency)
    ice = _ice_spectrum(rng, canvas, k_square, thickness, pixel, sigma, dose, ranges)
    ice *= signal_transfer

    # Signal to noise, judged at the picker's scale whatever the image's own
    contrast = uniform(rng, ranges.protein_contrast)
    band = frequency <= 0.5 * ranges.signal_to_noise_pixels_per_diameter / diameter
    shot_variance = float(np.sum(noise_transfer[band] ** 2)) / noise_transfer.size / electrons
    ice_variance = 2 * float(np.sum(np.abs(ice[band]) ** 2)) / (canvas[0] * canvas[1]) ** 2
    inside = particles > 0.15 * sigma * diameter
    snr = math.nan
    if bool(inside.any()):
        snr = float(np.var(signal[inside])) * contrast**2 / (shot_variance + ice_variance)
        target = log_uniform(rng, ranges.signal_to_noise)
        if not ranges.signal_to_noise[0] <= snr <= ranges.signal_to_noise[1]:
            contrast *= math.sqrt(target / snr)
            snr = target

    layers.phase += np.float32(sigma * contrast) * unlabelled
    spectrum = scipy.fft.rfft2(layers.phase)
    spectrum *= signal_transfer
    spectrum += ice
    other = scipy.fft.irfft2(spectrum, s=canvas)

    # What the film lets through: wedge and smooth background
    log_transmission = layers.log_transmission - np.float32(thickness / free_path)
    angle = uniform(rng, (0.0, 2 * math.pi))
    wedge = 0.5 * uniform(rng, ranges.ice_gradient) * thickness / free_path
    log_transmission += (wedge * math.sin(angle)) * np.linspace(-1, 1, canvas[0], dtype=np.float32)[:, None]
    log_transmission += (wedge * math.cos(angle)) * np.linspace(-1, 1, canvas[1], dtype=np.float32)[None, :]
    shot_deviation = math.sqrt(float(np.mean(noise_transfer**2)) / electrons)
    background = min(uniform(rng, ranges.background_amplitude) * shot_deviation, 0.08)
    if background > 0:
        length = max(2.0, log_uniform(rng, ranges.background_length_angstrom) / pixel)
        log_transmission += np.float32(background) * smooth_field(rng, canvas, length)

    phase_contrast = np.float32(contrast) * signal + other
    phase_contrast = np.float32(_SATURATION) * np.tanh(phase_contrast / np.float32(_SATURATION))
    expected = np.exp(log_transmission)
    expected *= 1 + phase_contrast
    expected *= np.float32(dose * pixel**2)
    if rng.random() < ranges.sign_inversion_probability:
        expected = np.maximum(2 * np.median(expected) - expected, 0)

    gain, bad, values = draw_faults(rng, ranges, shape)
    parts = [expected * np.float32(0.5)] * 2 if halves else [expected]
    recorded = []
    for part in parts:
        image = np.ascontiguousarray(detect(rng, part, noise_transfer)[inner])
        if gain is not None:
            image *= gain
        image.reshape(-1)[bad] = values * np.float32(part.mean())
        recorded.append(image)
    image = recorded[0] + recorded[1] if halves else recorded[0]

    centres = centres - margin
    junk = np.ascontiguousarray(layers.junk[inner])
    within = np.all((centres >= 0) & (centres <= np.asarray(shape) - 1), axis=1)
    centres = centres[within]
    if len(centres):
        nearest = np.rint(centres).astype(int)
        centres = centres[~junk[nearest[:, 0], nearest[:, 1]]]
    return Scene(
        image=image,
        clean=np.ascontiguousarray(expected[inner]),
        even=recorded[0] if halves else None,
        odd=recorded[1] if halves else None,
        centres_yx=centres,
        diameter_pixels=diameter_pixels,
        pixel_size_angstrom=pixel,
        junk=junk,
        ctf=ctf,
        optics=optics,
        dose_electrons_per_square_angstrom=dose,
        ice_thickness_angstrom=thickness,
        snr=snr,
        contrast=contrast,
        species=tuple(library.structure(index).name for index, _ in species),
    )


def _fast(size: int) -> int:
    """Return the next size that is even and quick to transform."""
    result = int(scipy.fft.next_fast_len(size, real=True))
    while result % 2:
        result = int(scipy.fft.next_fast_len(result + 1, real=True))
    return result


def _ice_spectrum(
    rng: np.random.Generator,
    shape: tuple[int, int],
    k_square: NDArray[np.float32],
    thickness_angstrom: float,
    pixel_size_angstrom: float,
    sigma: float,
    dose: float,
    ranges: SimulationRanges,
) -> NDArray[np.complex64]:
    """Return the Fourier transform (h, w//2+1) of amorphous ice's fluctuation of phase.

    Water: 0.0314 molecules per cubic angstrom, 143 V angstrom^3 each, density fluctuation at long wavelengths
    0.08 of a gas's variance (its compressibility). In the beam the molecules wander, 1 angstrom^2 of mean
    square displacement per electron per square angstrom (McMullan et al., Ultramicroscopy 158 (2015) 26),
    which blurs the sum of all frames.
    """
    variance = (
        0.08 * uniform(rng, ranges.ice_structure) * 0.0314 * thickness_angstrom / pixel_size_angstrom**2
    )
    noise = rng.standard_normal((shape[0], shape[1] // 2 + 1, 2), dtype=np.float32)
    spectrum = noise.view(np.complex64)[..., 0]
    blur = np.exp(np.float32(-2 * math.pi**2 * dose / 6) * k_square)
    # A unit white image has power h * w at every frequency, half of it in the real part.
    spectrum *= blur * np.float32(sigma * 143 * math.sqrt(variance * shape[0] * shape[1] / 2))
    return spectrum


def _add_particles(
    target: NDArray[np.float32],
    rng: np.random.Generator,
    library: ParticleLibrary,
    index: int,
    centres: NDArray[np.float64],
    diameter_angstrom: float,
    pixel_size_angstrom: float,
    modes: tuple[NDArray[np.float64], float] | None,
) -> None:
    """Add particles' projected potential (volt angstrom) to a canvas (h, w), in place."""
    directions = draw_directions(rng, len(centres), modes)
    angles = rng.random(len(centres)) * 2 * math.pi
    if not len(centres):
        return
    if diameter_angstrom / pixel_size_angstrom > _LARGEST_CACHED:
        _project_each(
            target, library, index, centres, diameter_angstrom, pixel_size_angstrom, directions, angles
        )
    else:
        view = np.argmax(directions @ library.directions.T, axis=1)
        _place_views(target, library, index, view, centres, diameter_angstrom, pixel_size_angstrom, angles)


def _project_each(
    target: NDArray[np.float32],
    library: ParticleLibrary,
    index: int,
    centres: NDArray[np.float64],
    diameter_angstrom: float,
    pixel_size_angstrom: float,
    directions: NDArray[np.float64],
    angles: NDArray[np.float64],
) -> None:
    """Project every particle from its blobs, each in its own orientation."""
    structure = library.structure(index)
    scale = diameter_angstrom / structure.diameter_angstrom
    rotations = rotation_matrices(directions, angles)[:, :2].astype(np.float32)
    points = np.zeros(target.shape, dtype=np.float32)
    half = int(0.6 * BOX * diameter_angstrom / pixel_size_angstrom) + 2
    for (y, x), rotation in zip(centres, rotations, strict=True):
        plane = rotation @ structure.positions_angstrom.T * np.float32(scale / pixel_size_angstrom)
        top, left = max(0, int(y) - half), max(0, int(x) - half)
        part = points[top : int(y) + half + 1, left : int(x) + half + 1]
        stamp = np.zeros(part.shape, dtype=np.float32)
        splat(stamp, plane[0] + (x - left), plane[1] + (y - top), structure.weights)
        part += stamp
    k_y, k_x = spatial_frequencies((target.shape[0], target.shape[1]), pixel_size_angstrom)
    sigma = math.sqrt(max((scale * structure.blob_sigma_angstrom) ** 2 - pixel_size_angstrom**2 / 6, 0.0))
    blur = np.exp(-2 * (math.pi * sigma * k_y) ** 2) * np.exp(-2 * (math.pi * sigma * k_x) ** 2)
    blurred = scipy.fft.irfft2(scipy.fft.rfft2(points) * blur.astype(np.float32), s=points.shape)
    # A blob's volume grows with the cube of the scale, a pixel's area does not.
    target += blurred * np.float32(scale**3 / pixel_size_angstrom**2)


def _place_views(
    target: NDArray[np.float32],
    library: ParticleLibrary,
    index: int,
    view: NDArray[np.int64],
    centres: NDArray[np.float64],
    diameter_angstrom: float,
    pixel_size_angstrom: float,
    angles: NDArray[np.float64],
) -> None:
    """Place kept projections, each turned in the plane and shifted by a part of a pixel."""
    size = diameter_angstrom / pixel_size_angstrom
    level = next((level for level in LEVELS if level >= 0.95 * size), LEVELS[-1])
    bank = library.views(index, level)
    half = int(BOX * size / 2) + 1
    base = np.rint(centres).astype(np.int64)
    part = centres - base
    cos, sin = np.cos(angles) * level / size, np.sin(angles) * level / size
    # grid_sample counts from the box's middle in halves of its width.
    unit = 2 / (bank.shape[-1] - 1)
    side = 2 * half + 1
    steps = np.arange(-half, half + 1)
    along, down = (steps - part[:, 1:]) * unit, (steps - part[:, :1]) * unit
    grid = np.empty((len(centres), side, side, 2), dtype=np.float32)
    # The picture turned by an angle: look up each pixel turned back.
    grid[..., 0] = (cos * along.T).T[:, None, :] + (sin * down.T).T[:, :, None]
    grid[..., 1] = (cos * down.T).T[:, :, None] - (sin * along.T).T[:, None, :]
    stamps = torch.nn.functional.grid_sample(
        bank[torch.from_numpy(view)],
        torch.from_numpy(grid),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )[:, 0].numpy()
    stamps *= np.float32(diameter_angstrom)
    height, width = target.shape
    for (y, x), stamp in zip(base.tolist(), stamps, strict=True):
        top, left = max(0, half - y), max(0, half - x)
        bottom, right = min(side, height - y + half), min(side, width - x + half)
        if top < bottom and left < right:
            target[y - half + top : y - half + bottom, x - half + left : x - half + right] += stamp[
                top:bottom, left:right
            ]


def _add_distractors(
    phase: NDArray[np.float32],
    rng: np.random.Generator,
    library: ParticleLibrary,
    diameter_angstrom: float,
    pixel_size_angstrom: float,
    disc: float,
    forbidden: NDArray[np.bool_],
) -> None:
    """Add small unlabelled fragments: dissociated subunits, other proteins."""
    index = library.draw(rng)
    size = diameter_angstrom * uniform(rng, (0.2, 0.5))
    count = int(rng.poisson(log_uniform(rng, (0.02, 0.8)) * phase.size / disc))
    shape = (phase.shape[0], phase.shape[1])
    centres = place(rng, shape, count, 0.5 * size / pixel_size_angstrom, forbidden, 0.0)
    _add_particles(phase, rng, library, index, centres, size, pixel_size_angstrom, None)


def _add_aggregates(
    target: NDArray[np.float32],
    layers: Layers,
    rng: np.random.Generator,
    ranges: SimulationRanges,
    library: ParticleLibrary,
    species: tuple[int, float],
) -> None:
    """Add clumps of the particle itself, touching and overlapping; they are junk."""
    radius = layers.diameter_pixels / 2
    for _ in range(int(rng.integers(1, 4))):
        count = int(rng.integers(ranges.aggregate_particles[0], ranges.aggregate_particles[1] + 1))
        step = layers.diameter_pixels * uniform(rng, (0.35, 0.6))
        # Each joins a random one of those already there.
        places = [np.asarray(layers.anywhere(rng))]
        for _ in range(count - 1):
            angle = uniform(rng, (0.0, 2 * math.pi))
            parent = places[int(rng.integers(len(places)))]
            places.append(parent + step * np.array([math.sin(angle), math.cos(angle)]))
        centres = np.asarray(places)
        _add_particles(
            target, rng, library, species[0], centres, species[1], layers.pixel_size_angstrom, None
        )
        for centre in places:
            part = window(layers.shape, (float(centre[0]), float(centre[1])), radius)
            if part is not None:
                y, x = offsets(part, (float(centre[0]), float(centre[1])))
                layers.junk[part] |= x * x + y * y < radius**2
