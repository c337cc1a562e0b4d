"""A whole simulated tomogram: specimen, tilt series, and its reconstruction with an alignment's errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.reconstruction import ramp_filter, reconstruct_slab
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.ranges import uniform
from emflow.simulation.shapes import Structure
from emflow.simulation.tomograms.ranges import TomogramRanges
from emflow.simulation.tomograms.specimen import Particle, Specimen, draw_specimen
from emflow.simulation.tomograms.tilts import (
    SimulatedTiltSeries,
    draw_geometry,
    misaligned,
    record_tilt_series,
)
from emflow.tilt_geometry import TiltGeometry
from emflow.tilt_images import exposure_weighted
from emflow.tomogram_classes import NOT_LABELLED

# To be raised when a seed gives another tomogram: those that were kept are made again then.
REVISION = 1


@dataclass(frozen=True)
class SimulatedTomogram:
    """A tomogram of full, even and odd data, float32 (z, y, x), protein dark, and the truth about it.

    ``clean`` is the same of images without noise: what a denoiser can hope for.
    ``labels`` is uint8 in the order of `Label`, 255 where fewer than half of the images show anything;
    the specimen holds the potential.
    """

    full: NDArray[np.float32]
    even: NDArray[np.float32]
    odd: NDArray[np.float32]
    clean: NDArray[np.float32]
    labels: NDArray[np.uint8]
    specimen: Specimen
    geometry: TiltGeometry

    @property
    def particles(self) -> list[Particle]:
        """The particles that are in it."""
        return self.specimen.particles


def weighted(images: NDArray[np.float32], series: SimulatedTiltSeries) -> NDArray[np.float32]:
    """Return images (n, h, w) with each frequency weighed by what damage has left of it."""
    middle = series.pre_exposure_electrons_per_square_angstrom.copy()
    middle += series.exposure_electrons_per_square_angstrom / 2
    return np.stack(
        [
            exposure_weighted(image, series.pixel_size_angstrom, float(exposure), series.voltage_kilovolt)
            for image, exposure in zip(images, middle, strict=True)
        ]
    )


def simulate_tomogram(
    seed: int,
    shape: tuple[int, int, int],
    *,
    ranges: TomogramRanges | None = None,
    pixel_size_angstrom: float = 10.0,
    library: ParticleLibrary | None = None,
    ribosomes: Sequence[Structure] = (),
    complexes: Sequence[Structure] = (),
    device: str = "cpu",
) -> SimulatedTomogram:
    """Simulate one tomogram of ``shape`` (z, y, x), the same for the same seed.

    The depth should leave room for the ice: see `specimen.specimen_depth`.
    """
    ranges = ranges or TomogramRanges()
    rng = np.random.default_rng(seed)
    specimen = draw_specimen(
        rng,
        ranges,
        shape,
        pixel_size_angstrom,
        library=library,
        ribosomes=ribosomes,
        complexes=complexes,
    )
    true = draw_geometry(rng, ranges)
    series = record_tilt_series(rng, ranges, specimen, true, shape[1:], device=device)
    found = misaligned(
        rng,
        true,
        uniform(rng, ranges.residual_shift_pixels) * pixel_size_angstrom,
        uniform(rng, ranges.residual_axis_degrees),
    )
    weigh = rng.random() < ranges.exposure_weighting_probability
    parts = [series.contrast(half) for half in (series.even, series.odd, series.expected)]
    if weigh:
        parts = [weighted(part, series) for part in parts]
    even, odd, clean = reconstructed(np.stack(parts), found, pixel_size_angstrom, shape, device)
    seen = reconstruct_slab(
        torch.ones((len(true), *shape[1:]), device=device), true, pixel_size_angstrom, shape, 0, shape[0]
    )
    labels = np.where(seen.cpu().numpy() < len(true) / 2, np.uint8(NOT_LABELLED), specimen.labels)
    return SimulatedTomogram(0.5 * (even + odd), even, odd, clean, labels, specimen, true)


def reconstructed(
    images: NDArray[np.float32],
    geometry: TiltGeometry,
    pixel_size_angstrom: float,
    shape: tuple[int, int, int],
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return the weighted back-projections (..., z, y, x) of images (..., n, h, w)."""
    filtered = ramp_filter(torch.from_numpy(images).to(device), geometry, shape[0])
    volume = reconstruct_slab(filtered, geometry, pixel_size_angstrom, shape, 0, shape[0])
    return np.asarray(volume.cpu().numpy())
