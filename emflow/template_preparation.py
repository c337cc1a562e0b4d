"""A template from a map or an atomic model: resampled, smoothed, cut out by a soft sphere."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from emflow.simulation.shapes import Structure

Volume = NDArray[np.float32]
FEWEST_VOXELS = 10
# Of the sphere: how far it reaches beyond the particle, and over how many voxels it fades.
_ROOM = 1.1
_FADE_VOXELS = 2.0


@dataclass(frozen=True)
class Template:
    """A particle to look for.

    ``density`` is float32 (2 box, 2 box, 2 box), on voxels half as wide as the tomogram's, about voxel
    ``box``, protein bright; ``mask`` float32 (box, box, box), 0..1, on the tomogram's, about voxel
    ``box // 2``. The box is even.
    """

    density: Volume
    mask: Volume

    @property
    def box(self) -> int:
        """Voxels of the tomogram a side."""
        return len(self.mask)


class TemplateError(ValueError):
    """A template that cannot be looked for; what is said reads on after the file's name."""


def box_voxels(diameter_angstrom: float, pixel_size_angstrom: float) -> int:
    """Return the even side of the box that a template of a diameter, its mask and its fringes take.

    Raises
    ------
    TemplateError
        If the particle has fewer than `FEWEST_VOXELS` across.
    """
    across = diameter_angstrom / pixel_size_angstrom
    if across < FEWEST_VOXELS:
        raise TemplateError(
            f"is {across:.1f} voxels across at {pixel_size_angstrom:g} A, and {FEWEST_VOXELS} are the fewest "
            f"that tell one particle from another: choose a finer pixel size, "
            f"{diameter_angstrom / FEWEST_VOXELS:.3g} A or less"
        )
    return 2 * math.ceil(_ROOM * across / 2 + 2 * _FADE_VOXELS)


def template_from_map(
    density: NDArray[np.floating],
    map_pixel_size_angstrom: float,
    *,
    pixel_size_angstrom: float,
    diameter_angstrom: float,
) -> Template:
    """Return the template of a map (z, y, x), protein bright, whose particle lies about voxel ``side // 2``.

    Frequencies beyond what the tomogram's voxels hold are taken away.

    Raises
    ------
    TemplateError
        If the map is not cubic, not finite, constant, dark, or too small on the tomogram's voxels.
    """
    box = box_voxels(diameter_angstrom, pixel_size_angstrom)
    centred = checked_map(density, diameter_angstrom / map_pixel_size_angstrom)
    smooth = _low_passed(centred, map_pixel_size_angstrom / (2 * pixel_size_angstrom))
    factor = 0.5 * pixel_size_angstrom / map_pixel_size_angstrom
    # Voxel `box` of the fine grid lies on the map's middle.
    fine = ndimage.affine_transform(
        smooth,
        np.full(3, factor),
        offset=np.full(3, len(density) // 2 - factor * box),
        output_shape=(2 * box,) * 3,
        order=3,
        mode="constant",
    ).astype(np.float32)
    radius = _ROOM * diameter_angstrom / pixel_size_angstrom / 2
    fine *= soft_sphere(2 * box, 2 * radius, 2 * _FADE_VOXELS)
    return Template(fine, soft_sphere(box, radius, _FADE_VOXELS))


def template_from_structure(
    structure: "Structure", *, pixel_size_angstrom: float, diameter_angstrom: float | None = None
) -> Template:
    """Return the template of an atomic model, about its centre of mass.

    Raises
    ------
    TemplateError
        If it is too small on the tomogram's voxels.
    """
    # Its package imports torch, and settings are checked without.
    from emflow.simulation.tomograms.canvas import Canvas

    diameter = diameter_angstrom or structure.diameter_angstrom
    fine = pixel_size_angstrom / 2
    side = 2 * math.ceil(max(diameter, structure.diameter_angstrom) / fine / 2 + 8)
    canvas = Canvas((side, side, side), fine)
    voxels = structure.positions_angstrom[:, ::-1] / np.float32(fine)
    canvas.add_points(voxels + canvas.centre_voxel, structure.weights / fine**3)
    return template_from_map(
        canvas.rendered(), fine, pixel_size_angstrom=pixel_size_angstrom, diameter_angstrom=diameter
    )


def soft_sphere(side: int, radius: float, fade: float) -> Volume:
    """Return a ball (side, side, side) about voxel ``side // 2``, falling to 0 over ``fade`` voxels."""
    axis = np.arange(side, dtype=np.float32) - side // 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    ramp = np.clip((radius + fade - distance) / fade, 0, 1)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * ramp), dtype=np.float32)


def checked_map(density: NDArray[np.floating], diameter_voxels: float) -> Volume:
    """Return a map (z, y, x) less the median of what is outside the particle.

    Raises
    ------
    TemplateError
        If it is not cubic, not finite, constant, or dark.
    """
    if density.ndim != 3 or len(set(density.shape)) != 1:
        shown = " x ".join(str(side) for side in density.shape[::-1])
        raise TemplateError(f"is no cube: {shown} voxels")
    if not np.isfinite(density).all():
        raise TemplateError("has voxels that are NaN or infinite")
    values = np.asarray(density, dtype=np.float32)
    if not values.max() > values.min():
        raise TemplateError("is constant")
    outside = soft_sphere(len(values), diameter_voxels / 2, 1.0) < 0.5
    if not outside.any():
        outside = np.ones_like(outside)
        outside[1:-1, 1:-1, 1:-1] = False
    centred = values - np.median(values[outside])
    if centred[~outside].mean() <= 0:
        raise TemplateError(
            "is darker in its middle than outside: a template's protein should be bright, as in maps of the "
            "EMDB; multiply it by -1"
        )
    return np.asarray(centred)


def _low_passed(volume: Volume, cutoff: float) -> Volume:
    """Return a cube without what is beyond a cutoff in cycles per voxel, over a soft edge of a tenth."""
    if cutoff >= 0.5 * math.sqrt(3):
        return volume
    side = len(volume)
    around, half = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    frequency = np.sqrt(around[:, None, None] ** 2 + around[:, None] ** 2 + half**2)
    edge = np.clip((cutoff - frequency) / (0.1 * cutoff), 0, 1)
    filtered = scipy.fft.irfftn(scipy.fft.rfftn(volume) * edge.astype(np.float32), s=volume.shape)
    return np.asarray(filtered, dtype=np.float32)
