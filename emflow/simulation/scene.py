"""One simulated micrograph, or several at once: particles and contaminants in ice, imaged and counted."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emflow.metadata import Ctf, OpticsGroup
from emflow.simulation.fields import Device
from emflow.simulation.imaging import Pictures, image_plans
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.plan import ScenePlan, draw_plan
from emflow.simulation_ranges import SimulationRanges

# Scenes are imaged so many pixels at a time: some 40 bytes of memory each.
_PIXELS_AT_A_TIME = 2**26


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
    device: Device = "cpu",
) -> Scene:
    """Draw one micrograph; the same arguments give the same bytes on the same device.

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
    device
        Where it is imaged. What is true of a scene is the same on every device; its noise is not.

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    (scene,) = draw_scenes(
        [seed],
        shape=shape,
        library=library,
        ranges=ranges,
        pixel_size_angstrom=pixel_size_angstrom,
        diameter_pixels=diameter_pixels,
        halves=halves,
        device=device,
    )
    return scene


def draw_scenes(
    seeds: Sequence[int],
    *,
    shape: tuple[int, int],
    library: ParticleLibrary,
    ranges: SimulationRanges | None = None,
    pixel_size_angstrom: float | None = None,
    diameter_pixels: float | None = None,
    halves: bool = False,
    device: Device = "cpu",
) -> list[Scene]:
    """Draw the micrographs that :func:`draw_scene` draws of each seed, imaging as many at once as fit.

    On a GPU this is faster than one by one; on a CPU it is not. Pictures agree up to rounding.
    """
    ranges = SimulationRanges() if ranges is None else ranges
    if min(shape) < 16 or not all(v is None or v > 0 for v in (pixel_size_angstrom, diameter_pixels)):
        raise ValueError(f"shape {shape}, pixel size {pixel_size_angstrom}, diameter {diameter_pixels}")
    plans = [
        draw_plan(
            seed,
            shape=shape,
            library=library,
            ranges=ranges,
            pixel_size_angstrom=pixel_size_angstrom,
            diameter_pixels=diameter_pixels,
        )
        for seed in seeds
    ]
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, plan in enumerate(plans):
        alike[plan.canvas].append(number)
    scenes: dict[int, Scene] = {}
    for canvas, numbers in alike.items():
        at_once = max(1, _PIXELS_AT_A_TIME // (canvas[0] * canvas[1]))
        for first in range(0, len(numbers), at_once):
            members = numbers[first : first + at_once]
            pictures = image_plans([plans[one] for one in members], library, halves=halves, device=device)
            scenes |= {number: _scene(plans[number], pictures, index) for index, number in enumerate(members)}
    return [scenes[number] for number in range(len(plans))]


def _scene(plan: ScenePlan, pictures: Pictures, index: int) -> Scene:
    recorded = pictures.recorded[index]
    halves = len(recorded) == 2
    return Scene(
        image=recorded[0] + recorded[1] if halves else recorded[0],
        clean=pictures.clean[index],
        even=recorded[0] if halves else None,
        odd=recorded[1] if halves else None,
        centres_yx=plan.centres_yx,
        depths_angstrom=plan.depths_angstrom,
        diameter_pixels=plan.diameter_pixels,
        pixel_size_angstrom=plan.exposure.optics.pixel_size_angstrom,
        junk=pictures.junk[index],
        ctf=plan.exposure.ctf,
        optics=plan.exposure.optics,
        dose_electrons_per_square_angstrom=plan.exposure.dose_electrons_per_square_angstrom,
        ice_thickness_angstrom=plan.ice.thickness_angstrom,
        snr=float(pictures.signal_to_noise[index]),
        contrast=float(pictures.contrast[index]),
        species=plan.species,
    )
