"""From the plans of scenes to their pictures, several at once, on a CPU or a GPU."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.simulation.contaminants import Layers
from emflow.simulation.detector import detect
from emflow.simulation.fields import Device, Noise, of_each, smooth_field
from emflow.simulation.frequencies import Frequencies
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.microscope import Microscope
from emflow.simulation.particles import mark_discs, particle_spectra
from emflow.simulation.plan import ScenePlan, Slab

# Phase contrast is linear for small phases; it saturates here, as an intensity cannot fall below nothing.
_SATURATION = 0.9
# Pixels of less potential than so much volt along the diameter are not of a particle.
_PARTICLE_VOLT = 0.15


@dataclass(frozen=True)
class Pictures:
    """What is recorded of ``n`` scenes, and what is known of it by imaging them alone.

    ``recorded`` float32 (n, exposures, h, w) in detector counts: of one exposure, or of two of half the dose;
    ``clean`` float32 (n, h, w), the expectation of all; ``junk`` bool (n, h, w); ``signal_to_noise`` and
    ``contrast`` float32 (n,), see `emflow.simulation.Scene`.
    """

    recorded: NDArray[np.float32]
    clean: NDArray[np.float32]
    junk: NDArray[np.bool_]
    signal_to_noise: NDArray[np.float32]
    contrast: NDArray[np.float32]


@torch.no_grad()
def image_plans(
    plans: Sequence[ScenePlan], library: ParticleLibrary, *, halves: bool = False, device: Device = "cpu"
) -> Pictures:
    """Image scenes of one shape and canvas; each is the same alone and with others, up to rounding.

    Parameters
    ----------
    plans
        What they are to be; the library is the one they were drawn with.
    library
        The particles.
    halves
        Whether each is exposed twice, with half the dose.
    device
        Where. What is random on a pixel's scale differs between devices.

    Raises
    ------
    ValueError
        If the scenes' canvases differ.
    """
    if len({(plan.shape, plan.canvas) for plan in plans}) != 1:
        raise ValueError("scenes imaged together have one shape and one canvas")
    device = torch.device(device)
    canvas, count = plans[0].canvas, len(plans)
    noises = [Noise(plan.noise_seed, device) for plan in plans]
    frequencies = Frequencies(canvas, device)
    microscope = Microscope([plan.exposure for plan in plans], frequencies)
    transfer = microscope.contrast_transfer([0.0] * count)

    layers = Layers(
        phase=torch.zeros((count, *canvas), device=device),
        log_transmission=torch.zeros((count, *canvas), device=device),
        junk=torch.zeros((count, *canvas), dtype=torch.bool, device=device),
    )
    for number, (plan, noise) in enumerate(zip(plans, noises, strict=True)):
        _lay_down(plan, noise, layers.of(number))
    pixel_sizes = [_pixel(plan) for plan in plans]
    unlabelled = particle_spectra([plan.unlabelled for plan in plans], library, pixel_sizes, frequencies)

    # Contrast: linear in the phase; MTF and envelopes belong to the signal alone
    sigma = of_each((plan.exposure.radian_per_volt_angstrom for plan in plans), device)
    labelled, signal = _signal(plans, library, microscope, frequencies, transfer)
    signal *= sigma
    ice = transfer * microscope.ice_spectrum(
        noises, [plan.ice.thickness_angstrom for plan in plans], [plan.ice.structure for plan in plans]
    )
    in_band = frequencies.radius <= of_each((plan.visibility.cutoff_per_pixel for plan in plans), device)
    shot_variance = (microscope.noise_transfer**2 * in_band).sum((1, 2), keepdim=True) / (
        frequencies.radius.numel() * of_each((plan.electrons for plan in plans), device)
    )
    ice_variance = 2 * (ice.abs() ** 2 * in_band).sum((1, 2), keepdim=True) / math.prod(canvas) ** 2
    contrast, signal_to_noise = _visibility(plans, labelled, signal, shot_variance + ice_variance)
    spectrum = transfer * (torch.fft.rfft2(layers.phase) + sigma * contrast * unlabelled) + ice
    phase_contrast = contrast * signal + torch.fft.irfft2(spectrum, s=canvas)
    phase_contrast = _SATURATION * torch.tanh(phase_contrast / _SATURATION)

    # Electrons expected at the detector
    expected = layers.log_transmission
    for number, (plan, noise) in enumerate(zip(plans, noises, strict=True)):
        _add_ice_film(plan, noise, expected[number], shot_variance[number].sqrt())
    expected = torch.exp(expected) * (1 + phase_contrast)
    expected *= of_each(
        (plan.exposure.dose_electrons_per_square_angstrom * _pixel(plan) ** 2 for plan in plans), device
    )
    for number, plan in enumerate(plans):
        if plan.is_inverted:
            expected[number] = (2 * expected[number].median() - expected[number]).clamp(min=0)

    # The detector; its faults are the same in both halves
    inner = (..., *plans[0].image)
    exposures = 2 if halves else 1
    recorded = torch.empty((count, exposures, *plans[0].shape), device=device)
    for exposure in range(exposures):
        part = expected / exposures
        electrons = [plan.electrons / exposures for plan in plans]
        recorded[:, exposure] = detect(noises, part, microscope.noise_transfer, electrons)[inner]
        means = part.mean((1, 2))
        for number, plan in enumerate(plans):
            plan.faults.spoil(recorded[number, exposure], means[number])
    return Pictures(
        recorded=recorded.cpu().numpy(),
        clean=expected[inner].contiguous().cpu().numpy(),
        junk=layers.junk[inner].contiguous().cpu().numpy(),
        signal_to_noise=signal_to_noise.flatten().cpu().numpy(),
        contrast=contrast.flatten().cpu().numpy(),
    )


def _pixel(plan: ScenePlan) -> float:
    return plan.exposure.optics.pixel_size_angstrom


def _lay_down(plan: ScenePlan, noise: Noise, layers: Layers) -> None:
    """Add contaminants and the support film, and mark aggregates, in place."""
    for one in plan.contaminants:
        one.lay(layers, noise)
    if plan.film_radian:
        layers.phase.add_(noise.normal(*plan.canvas), alpha=plan.film_radian)
    if plan.aggregates is not None:
        mark_discs(layers.junk, plan.aggregates.centres, plan.diameter_pixels / 2)


def _signal(
    plans: Sequence[ScenePlan],
    library: ParticleLibrary,
    microscope: Microscope,
    frequencies: Frequencies,
    transfer: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the labelled particles' potential, and how it is seen, slab by slab of the ice: both (n, h, w).

    ``transfer`` (n, h, w//2+1) is that of the depth 0.
    """
    potential = torch.zeros_like(transfer, dtype=torch.complex64)
    spectrum = torch.zeros_like(potential)
    pixel_sizes = [_pixel(plan) for plan in plans]
    for number in range(max(len(plan.slabs) for plan in plans)):
        slabs = [plan.slabs[number] if number < len(plan.slabs) else Slab(0.0, ()) for plan in plans]
        slab = particle_spectra([one.placed for one in slabs], library, pixel_sizes, frequencies)
        depths = [one.depth_angstrom for one in slabs]
        potential += slab
        spectrum += slab * (microscope.contrast_transfer(depths) if any(depths) else transfer)
    return torch.fft.irfft2(potential, s=frequencies.shape), torch.fft.irfft2(spectrum, s=frequencies.shape)


def _visibility(
    plans: Sequence[ScenePlan], labelled: torch.Tensor, signal: torch.Tensor, noise_variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the particles' contrast and signal to noise, each (n, 1, 1), given the noise's variance.

    It is judged at the picker's scale, whatever the image's own.
    """
    device = signal.device
    least = of_each((_PARTICLE_VOLT * plan.diameter_pixels * _pixel(plan) for plan in plans), device)
    inside = labelled > least
    count = inside.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (signal * inside).sum((1, 2), keepdim=True) / count
    variance = ((signal - mean) ** 2 * inside).sum((1, 2), keepdim=True) / count
    contrast = of_each((plan.visibility.contrast for plan in plans), device)
    low, high = (of_each((plan.visibility.bounds[end] for plan in plans), device) for end in (0, 1))
    wanted = of_each((plan.visibility.wanted for plan in plans), device)
    found = variance * contrast**2 / noise_variance
    # Of a particle that only just reaches into the canvas a single pixel may be there, which has no variance.
    is_seen = variance > 0
    is_out = is_seen & ((found < low) | (found > high))
    contrast = torch.where(is_out, contrast * torch.sqrt(wanted / found), contrast)
    found = torch.where(is_out, wanted, found)
    return contrast, torch.where(is_seen, found, math.nan)


def _add_ice_film(
    plan: ScenePlan, noise: Noise, log_transmission: torch.Tensor, shot_deviation: torch.Tensor
) -> None:
    """Add what the ice takes, its wedge and an uneven background to a logarithm (h, w), in place."""
    ice = plan.ice
    y, x = (torch.linspace(-1, 1, size, device=noise.device) for size in plan.canvas)
    log_transmission += ice.wedge_yx[0] * y[:, None] + (ice.wedge_yx[1] * x[None, :] - ice.paths)
    if ice.background > 0:
        field = smooth_field(noise, plan.canvas, ice.background_pixels)
        log_transmission += ice.background * shot_deviation * field
