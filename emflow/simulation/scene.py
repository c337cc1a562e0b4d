"""One simulated micrograph: particles and contaminants in ice, imaged and counted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emflow.ctf import electron_wavelength_angstrom, spatial_frequencies
from emflow.metadata import Ctf, OpticsGroup
from emflow.simulation.contaminants import Layers, carbon_texture, contaminants
from emflow.simulation.depth import draw_depths, slabs
from emflow.simulation.detector import detect, draw_faults
from emflow.simulation.fields import smooth_field
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.microscope import Exposure
from emflow.simulation.particles import Placed, add_aggregates, add_distractors, add_particles
from emflow.simulation.ranges import log_uniform, mostly_low, uniform
from emflow.simulation.species import draw_scale, draw_species, place_labelled, visible
from emflow.simulation_ranges import SimulationRanges

# Phase contrast is linear for small phases; it saturates here, as an intensity cannot fall below nothing.
_SATURATION = 0.9


@dataclass(frozen=True)
class Scene:
    """A simulated micrograph and all that is known of it.

    ``image`` float32 (h, w) in detector counts, protein dark; ``clean`` its expectation, without shot noise
    and without the detector's faults; ``even`` and ``odd`` two exposures of half the dose whose sum is
    ``image`` (None unless asked for). ``centres_yx`` float64 (n, 2): centres of mass of the labelled
    particles in pixels; ``depths_angstrom`` float64 (n,): how deep they lie from the middle of the ice, by
    which each one's underfocus is larger than the micrograph's. ``junk`` bool (h, w). ``diameter_pixels``
    is the first species' true diameter. ``snr`` is the particles' signal over the noise, in variances (nan
    without particles), and ``contrast`` what the particles' potential was multiplied by.
    """

    image: NDArray[np.float32]
    clean: NDArray[np.float32]
    even: NDArray[np.float32] | None
    odd: NDArray[np.float32] | None
    centres_yx: NDArray[np.float64]
    depths_angstrom: NDArray[np.float64]
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
    first, diameter, pixel = draw_scale(rng, library, ranges, pixel_size_angstrom, diameter_pixels)
    diameter_pixels = diameter / pixel
    exposure = Exposure.draw(rng, ranges, pixel)
    sigma = exposure.radian_per_volt_angstrom

    # The canvas reaches beyond the image, so that particles and fringes cross its edge, and nothing wraps
    # round from the other side.
    margin = math.ceil(min(max(0.6 * diameter_pixels, 8), 0.5 * min(shape) + 8))
    canvas = (_fast_size(shape[0] + 2 * margin), _fast_size(shape[1] + 2 * margin))
    inner = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
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

    # What is labelled, and the potential of what must not be picked
    species = draw_species(rng, library, ranges, first, diameter)
    placed = place_labelled(rng, ranges, species, layers)
    centres = np.concatenate([one.centres for one in placed])
    unlabelled = np.zeros(canvas, dtype=np.float32)
    if rng.random() < ranges.distractor_probability:
        add_distractors(unlabelled, layers, rng, library, diameter)
    if rng.random() < ranges.aggregate_probability:
        add_aggregates(unlabelled, layers, rng, ranges, library, species[0])

    # Contrast: linear in the phase; MTF and envelopes belong to the signal alone
    k_y, k_x = spatial_frequencies(canvas, pixel)
    frequency = np.sqrt(k_x**2 + k_y**2, dtype=np.float32)
    contrast_transfer = exposure.contrast_transfer(canvas, frequency)
    thickness = max(log_uniform(rng, ranges.ice_thickness_angstrom), diameter)
    # By a generator of their own: another depth is no other scene.
    depths = draw_depths(np.random.default_rng((seed, 3)), centres * pixel, diameter, thickness)
    labelled = np.zeros(canvas, dtype=np.float32)
    signal = np.zeros(canvas, dtype=np.float32)
    for depth, members in slabs(
        depths, electron_wavelength_angstrom(exposure.optics.voltage_kilovolt), pixel
    ):
        slab = _potential(canvas, library, placed, members, pixel)
        transfer = exposure.contrast_transfer(canvas, frequency, depth) if depth else contrast_transfer
        labelled += slab
        signal += _image(sigma * slab, transfer)
    structure = uniform(rng, ranges.ice_structure)
    ice = exposure.ice_spectrum(rng, canvas, frequency, thickness, structure)
    ice *= contrast_transfer

    # Signal to noise, judged at the picker's scale whatever the image's own
    free_path = exposure.free_path_angstrom(ranges)
    dose = exposure.dose_electrons_per_square_angstrom
    electrons = dose * pixel**2 * math.exp(-thickness / free_path)
    noise_transfer = exposure.detector.noise_transfer(frequency)
    band = frequency <= 0.5 * ranges.signal_to_noise_pixels_per_diameter / diameter
    shot_variance = float(np.sum(noise_transfer[band] ** 2)) / noise_transfer.size / electrons
    ice_variance = 2 * float(np.sum(np.abs(ice[band]) ** 2)) / (canvas[0] * canvas[1]) ** 2
    contrast = uniform(rng, ranges.protein_contrast)
    target = log_uniform(rng, ranges.signal_to_noise)
    inside = labelled > 0.15 * diameter
    snr = math.nan
    # Of a particle that only just reaches into the canvas a single pixel may be there, which has no variance.
    variance = float(np.var(signal[inside])) if bool(inside.any()) else 0.0
    if variance > 0:
        snr = variance * contrast**2 / (shot_variance + ice_variance)
        if not ranges.signal_to_noise[0] <= snr <= ranges.signal_to_noise[1]:
            contrast *= math.sqrt(target / snr)
            snr = target

    # Electrons expected at the detector
    layers.phase += np.float32(sigma * contrast) * unlabelled
    phase_contrast = np.float32(contrast) * signal
    phase_contrast += _image(layers.phase, contrast_transfer, ice)
    phase_contrast = np.float32(_SATURATION) * np.tanh(phase_contrast / np.float32(_SATURATION))
    background = mostly_low(rng, ranges.background_amplitude) * math.sqrt(shot_variance)
    expected = np.exp(_log_film(rng, ranges, layers, thickness / free_path, background))
    expected *= 1 + phase_contrast
    expected *= np.float32(dose * pixel**2)
    if rng.random() < ranges.sign_inversion_probability:
        expected = np.maximum(2 * np.median(expected) - expected, 0)

    # The detector; its faults are the same in both halves
    gain, bad, values = draw_faults(rng, ranges, shape)
    recorded = []
    for part in [expected * np.float32(0.5)] * 2 if halves else [expected]:
        image = np.ascontiguousarray(detect(rng, part, noise_transfer)[inner])
        if gain is not None:
            image *= gain
        image.reshape(-1)[bad] = values * np.float32(part.mean())
        recorded.append(image)

    junk = np.ascontiguousarray(layers.junk[inner])
    seen = visible(centres - margin, junk)
    return Scene(
        image=recorded[0] + recorded[1] if halves else recorded[0],
        clean=np.ascontiguousarray(expected[inner]),
        even=recorded[0] if halves else None,
        odd=recorded[1] if halves else None,
        centres_yx=centres[seen] - margin,
        depths_angstrom=depths[seen],
        diameter_pixels=diameter_pixels,
        pixel_size_angstrom=pixel,
        junk=junk,
        ctf=exposure.ctf,
        optics=exposure.optics,
        dose_electrons_per_square_angstrom=dose,
        ice_thickness_angstrom=thickness,
        snr=snr,
        contrast=contrast,
        species=tuple(library.structure(index).name for index, _ in species),
    )


def _potential(
    canvas: tuple[int, int],
    library: ParticleLibrary,
    placed: Sequence[Placed],
    members: NDArray[np.bool_],
    pixel_size_angstrom: float,
) -> NDArray[np.float32]:
    """Return the projected potential (h, w) of those of the particles that are ``members`` (n,)."""
    potential = np.zeros(canvas, dtype=np.float32)
    ends = np.cumsum([len(one.centres) for one in placed])
    for one, of_it in zip(placed, np.split(members, ends[:-1]), strict=True):
        add_particles(potential, library, one.only(of_it), pixel_size_angstrom)
    return potential


def _image(
    phase: NDArray[np.float32],
    contrast_transfer: NDArray[np.float32],
    extra: NDArray[np.complex64] | None = None,
) -> NDArray[np.float32]:
    """Return the contrast (h, w) of a phase (h, w), plus that of a spectrum that is transferred already."""
    spectrum = scipy.fft.rfft2(np.asarray(phase, dtype=np.float32))
    spectrum *= contrast_transfer
    if extra is not None:
        spectrum += extra
    return np.asarray(scipy.fft.irfft2(spectrum, s=phase.shape, overwrite_x=True), dtype=np.float32)


def _log_film(
    rng: np.random.Generator,
    ranges: SimulationRanges,
    layers: Layers,
    paths: float,
    background: float,
) -> NDArray[np.float32]:
    """Return the logarithm of the transmitted fraction (h, w): contaminants, ice, its wedge, background.

    ``paths`` is the ice's thickness in inelastic mean free paths (an energy filter takes what is lost);
    ``background`` the deviation of a smooth random field.
    """
    angle = uniform(rng, (0.0, 2 * math.pi))
    wedge = 0.5 * mostly_low(rng, ranges.ice_gradient) * paths
    result = layers.log_transmission - np.float32(paths)
    height, width = layers.shape
    result += (wedge * math.sin(angle)) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    result += (wedge * math.cos(angle)) * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    length = log_uniform(rng, ranges.background_length_angstrom) / layers.pixel_size_angstrom
    if background > 0:
        result += np.float32(background) * smooth_field(rng, layers.shape, max(2.0, length))
    return result


def _fast_size(size: int) -> int:
    """Return the next size that is even and quick to transform."""
    result = int(scipy.fft.next_fast_len(size, real=True))
    while result % 2:
        result = int(scipy.fft.next_fast_len(result + 1, real=True))
    return result
