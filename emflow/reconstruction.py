"""Tomograms by weighted back-projection, slab by slab.

Each image is weighted by a ramp along the direction across its tilt axis, and every voxel sums what it meets
in the images: the inverse of projection for full sampling (Radermacher 1992). On the tilt axis, where all
images overlap in Fourier space, they are averaged (Harauz and van Heel 1986). The memory is that of one slab
and the images, whatever the tomogram's depth.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from emflow.tilt_geometry import TiltGeometry


def tilt_weights(geometry: TiltGeometry) -> NDArray[np.float64]:
    """Return the angle in radians that each image stands for, shape (n,): half the gap to either neighbour.

    The outermost images stand for as much to the outside as to the inside.
    """
    tilts = np.radians(geometry.y_tilt_degrees)
    if len(tilts) == 1:
        return np.ones(1)
    order = np.argsort(tilts, kind="stable")
    gaps = np.diff(tilts[order])
    weights = np.empty(len(tilts))
    weights[order] = 0.5 * (np.append(gaps[0], gaps) + np.append(gaps, gaps[-1]))
    return weights


def ramp_filter(
    images: torch.Tensor, geometry: TiltGeometry, depth_voxels: int, *, sirt_rounds: int | None = None
) -> torch.Tensor:
    """Weight images (..., n, h, w) by angle and by the frequency across the tilt axis, in cycles per pixel.

    The tilt axis lies along y turned by ``z_rot``: the frequency k is ``kx cos(z_rot) + ky sin(z_rot)``.
    Images are mirrored to twice their size for it: a periodic image would leak from edge to edge.

    The transform of what lies within a depth hardly changes over one part in this depth: on the tilt axis all
    images say the same. The exact weight, one part in as many as say it (Harauz and van Heel, Optik 73, 146,
    1986), ends in their mean there. A bare ramp ends in nothing, and blots out a membrane that all of them
    show edge on; ``hypot(k, k0)`` ends as it should, with ``k0`` one part in depth times range of tilts. The
    mean of an image says nothing of a part of the specimen, and is left out.

    With ``sirt_rounds`` the ramp is what so many rounds of SIRT would leave of it: times
    ``1 - (1 - a / |k|) ** rounds``, with the finest step a that is stable (Zeng, Phys. Med. Biol. 57 (2012)
    603, eq. 12).
    """
    height, width = images.shape[-2:]
    weights = tilt_weights(geometry)
    least = 1 / (depth_voxels * float(weights.sum()))
    ky = torch.fft.fftfreq(2 * height, device=images.device)[:, None]
    kx = torch.fft.rfftfreq(2 * width, device=images.device)[None]
    filtered = torch.empty_like(images)
    for n, (angle, weight) in enumerate(zip(np.radians(geometry.z_rot_degrees), weights, strict=True)):
        ramp = (float(np.cos(angle)) * kx + float(np.sin(angle)) * ky).square().add(least**2).sqrt()
        ramp[0, 0] = 0
        if sirt_rounds is not None:
            finest = 0.5 / max(height, width)
            ramp = ramp * (1 - (1 - finest / ramp.clamp(min=finest)) ** sirt_rounds)
        ramp = float(weight) * ramp
        image = images[..., n, :, :]
        mirrored = torch.cat([image, image.flip(-2)], dim=-2)
        mirrored = torch.cat([mirrored, mirrored.flip(-1)], dim=-1)
        spectrum = torch.fft.rfft2(mirrored) * ramp
        filtered[..., n, :, :] = torch.fft.irfft2(spectrum, s=mirrored.shape[-2:])[..., :height, :width]
    return filtered


def reconstruct_slab(
    images: torch.Tensor,
    geometry: TiltGeometry,
    pixel_size_angstrom: float,
    shape: tuple[int, int, int],
    first_slice: int,
    slices: int,
) -> torch.Tensor:
    """Back-project filtered images into the slices from ``first_slice``.

    Parameters
    ----------
    images
        Shape (..., n, height, width), filtered, of the volume's pixel size, centred at ``side // 2``. What
        stands before n, for example a series and its halves, is back-projected in one go.
    geometry
        Of the n images.
    shape
        Of the whole volume (z, y, x).

    Returns
    -------
    torch.Tensor
        Shape (..., slices, y, x). What lies outside an image adds nothing.
    """
    count, height, width = images.shape[-3:]
    stacked = images.reshape(-1, count, height, width)
    depth, rows, columns = shape
    device = images.device
    z = torch.arange(first_slice, first_slice + slices, device=device, dtype=torch.float32) - depth // 2
    y = torch.arange(rows, device=device, dtype=torch.float32) - rows // 2
    x = torch.arange(columns, device=device, dtype=torch.float32) - columns // 2
    slab = torch.zeros((len(stacked), slices * rows, columns), device=device)
    grid = torch.empty((1, slices * rows, columns, 2), device=device)
    shifts = geometry.shifts_angstrom / pixel_size_angstrom
    for n, matrix in enumerate(geometry.matrices()):
        for axis, side in ((0, width), (1, height)):
            # grid_sample's coordinates: -1 and 1 are the centres of the outermost pixels.
            scale = 2 / (side - 1)
            along_x, along_y, along_z = (float(one) * scale for one in matrix[axis])
            start = (float(shifts[n, axis]) + side // 2) * scale - 1
            lines = (along_z * z[:, None] + (along_y * y + start)[None]).reshape(-1, 1)
            torch.add(lines, along_x * x, out=grid[0, :, :, axis])
        slab += functional.grid_sample(
            stacked[None, :, n], grid, mode="bilinear", padding_mode="zeros", align_corners=True
        )[0]
    return slab.reshape(*images.shape[:-3], slices, rows, columns)


def reconstruct_slabs(
    images: torch.Tensor,
    geometry: TiltGeometry,
    pixel_size_angstrom: float,
    shape: tuple[int, int, int],
    slab_slices: int,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first slice, slab) of the weighted back-projection of unfiltered images (n, h, w)."""
    filtered = ramp_filter(images, geometry, shape[0])
    for first in range(0, shape[0], slab_slices):
        slices = min(slab_slices, shape[0] - first)
        yield first, reconstruct_slab(filtered, geometry, pixel_size_angstrom, shape, first, slices)


def project(
    volts: torch.Tensor,
    geometry: TiltGeometry,
    pixel_size_angstrom: float,
    shape: tuple[int, int],
) -> torch.Tensor:
    """Return the projected potential (n, h, w) in volt angstrom of a specimen (z, y, x), image by image.

    Each slice of the specimen is seen sheared; beyond its sides it is mirrored, so that tilted images are
    filled, as they are by a real specimen. x_tilt must leave the beam out of the slices' plane.
    """
    depth, rows, columns = volts.shape
    height, width = shape
    device = volts.device
    filled = [n for n in range(depth) if bool((volts[n] != 0).any())]
    slices = volts[filled][:, None]
    z = torch.tensor(filled, dtype=torch.float32, device=device) - depth // 2
    row = torch.arange(height, dtype=torch.float32, device=device) - height // 2
    column = torch.arange(width, dtype=torch.float32, device=device) - width // 2
    images = torch.zeros((len(geometry), height, width), device=device)
    grid = torch.empty((len(filled), height, width, 2), device=device)
    shifts = geometry.shifts_angstrom / pixel_size_angstrom
    for n, matrix in enumerate(geometry.matrices()):
        plane = np.linalg.inv(matrix[:, :2])
        # Image point q = A (x, y) + b z + shift, so (x, y) = A^-1 (q - shift - b z).
        slide = plane @ matrix[:, 2]
        start = plane @ shifts[n]
        for axis, side in ((0, columns), (1, rows)):
            scale = 2 / (side - 1)
            down, along = float(plane[axis, 1]) * scale, float(plane[axis, 0]) * scale
            first = (side // 2 - float(start[axis])) * scale - 1 - float(slide[axis]) * scale * z
            lines = first[:, None] + down * row
            torch.add(lines[:, :, None], along * column, out=grid[:, :, :, axis])
        sampled = functional.grid_sample(
            slices, grid, mode="bilinear", padding_mode="reflection", align_corners=True
        )
        # A slice is crossed over its thickness by the cosine of the tilt, which is the plane's determinant.
        images[n] = sampled.sum(dim=(0, 1)) * (pixel_size_angstrom * float(np.linalg.det(plane)))
    return images
