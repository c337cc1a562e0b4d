"""Other programs' alignments of tilt series, taken into RELION 5's terms (`emflow.tilt_geometry`).

All agree that the tilt axis lies along y before the image is turned; they differ in what is written down.
IMOD writes what takes the raw image to the aligned one, about centres at (side - 1) / 2; AreTomo and Warp
write the turn and the shift of the content in the raw image, about centres at side / 2.
"""

import numpy as np
from numpy.typing import NDArray

from emflow.tilt_geometry import TiltGeometry, Vector

_LARGEST_STRETCH = 0.05


def geometry_from_imod(
    transforms: NDArray[np.float64],
    tilts_degrees: Vector,
    shape: tuple[int, int],
    pixel_size_angstrom: float,
) -> TiltGeometry:
    """Take a tilt series that IMOD aligned into RELION 5's terms.

    IMOD's aligned image shows ``x' = x cos(tilt) + z sin(tilt), y' = y`` of the specimen, and
    ``(x', y') = A (u, v) + d`` of the raw image, both from the centres of their images (IMOD's manual
    pages of tilt and newstack, "Transformation files"). Hence the raw image turns the specimen by A's
    inverse and shifts it by ``-inverse(A) d``. A stretch (magnification, distortion) that A holds beside
    its rotation is left out.

    Parameters
    ----------
    transforms
        Shape (n, 6): the lines A11 A12 A21 A22 DX DY of an ``.xf`` file, in pixels of the raw image.
    tilts_degrees
        Shape (n,): the lines of the ``.tlt`` file.
    shape
        (height, width) of the raw images in pixels.
    pixel_size_angstrom
        Of the raw images.

    Raises
    ------
    ValueError
        If a line is no rotation to within 5 %.
    """
    matrices = transforms[:, :4].reshape(-1, 2, 2)
    z_rot = np.arctan2(matrices[:, 0, 1] - matrices[:, 1, 0], matrices[:, 0, 0] + matrices[:, 1, 1])
    cosine, sine = np.cos(z_rot), np.sin(z_rot)
    rotations = np.stack([np.stack([cosine, sine], -1), np.stack([-sine, cosine], -1)], -2)
    stretch = np.abs(matrices - rotations).max(axis=(1, 2), initial=0.0)
    if (stretch > _LARGEST_STRETCH).any():
        line = int(np.argmax(stretch > _LARGEST_STRETCH)) + 1
        raise ValueError(f"line {line}: no rotation")
    height, width = shape
    # From IMOD's centre to RELION's, which is half a pixel further where the side is even
    centres = np.array([(width - 1) / 2 - width // 2, (height - 1) / 2 - height // 2])
    shifts = centres - np.linalg.solve(matrices, transforms[:, 4:, None])[:, :, 0]
    return _geometry(tilts_degrees, np.degrees(z_rot), shifts * pixel_size_angstrom)


def geometry_from_aretomo(
    axes_degrees: Vector,
    shifts_pixels: NDArray[np.float64],
    tilts_degrees: Vector,
    pixel_size_angstrom: float,
) -> TiltGeometry:
    """Take a tilt series that AreTomo aligned into RELION 5's terms.

    ROT, TX and TY of an ``.aln`` file already are its angle of the axis and its shifts: the ``.xf`` file
    that AreTomo writes of the same alignment has A = Rz(-ROT) and d = -A T (AreTomo3, CSaveXF.cpp).

    Parameters
    ----------
    axes_degrees, tilts_degrees
        Shape (n,): ROT and TILT.
    shifts_pixels
        Shape (n, 2): TX and TY, in pixels of the raw image.
    pixel_size_angstrom
        Of the raw images.
    """
    return _geometry(tilts_degrees, axes_degrees, shifts_pixels * pixel_size_angstrom)


def geometry_from_warp(
    angles_degrees: Vector,
    axes_degrees: Vector,
    offsets_angstrom: NDArray[np.float64],
    level_angles_degrees: tuple[float, float] = (0.0, 0.0),
) -> TiltGeometry:
    """Take a tilt series that Warp aligned into RELION 5's terms.

    Warp turns the specimen by ``Euler(0, angle + level y, -axis) RotateX(level x)``, which is
    ``Rz(axis) Ry(-(angle + level y)) Rx(level x)``, and adds the offsets less the movement (warpylib,
    positions.py and euler.py). So its angles have the other sign than RELION's and IMOD's.

    Parameters
    ----------
    angles_degrees, axes_degrees
        Shape (n,): ``Angles`` and ``AxisAngle``.
    offsets_angstrom
        Shape (n, 2): ``AxisOffsetX`` and ``AxisOffsetY``, less the movement of the image as a whole.
    level_angles_degrees
        ``LevelAngleX`` and ``LevelAngleY``.
    """
    level_x, level_y = level_angles_degrees
    return _geometry(-(angles_degrees + level_y), axes_degrees, offsets_angstrom, level_x)


def _geometry(
    tilts_degrees: Vector,
    axes_degrees: Vector,
    shifts_angstrom: NDArray[np.float64],
    x_tilt_degrees: float = 0.0,
) -> TiltGeometry:
    tilts = np.asarray(tilts_degrees, dtype=np.float64)
    return TiltGeometry(
        np.full_like(tilts, x_tilt_degrees),
        tilts,
        np.asarray(axes_degrees, dtype=np.float64),
        shifts_angstrom[:, 0],
        shifts_angstrom[:, 1],
    )
