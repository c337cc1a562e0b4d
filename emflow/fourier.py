"""Fourier space: resampling, shared by every stage that changes the pixel size; frequencies of volumes."""

import numpy as np
import scipy.fft
from numpy.typing import NDArray


def even_side(pixels: float) -> int:
    """Return the even number of pixels, two or more, that is nearest to a length in pixels."""
    return max(2, 2 * round(pixels / 2))


def resized_shape(
    shape: tuple[int, int], pixel_size_in_angstrom: float, pixel_size_out_angstrom: float
) -> tuple[int, int]:
    """Return the even (height, width) whose pixels come closest to the wanted size.

    Both sides are rounded on their own, so the true scale is ``shape[axis] / resized[axis]`` per axis: use
    that for coordinates, never the ratio of the nominal pixel sizes.
    """
    ratio = pixel_size_in_angstrom / pixel_size_out_angstrom
    height, width = (even_side(side * ratio) for side in shape)
    return height, width


def square_shapes(
    shape: tuple[int, int], pixel_size_in_angstrom: float, pixel_size_out_angstrom: float
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the (height, width) to cut out of an image's middle, and the even one that it is resized to.

    Unlike with `resized_shape`, one pixel size holds for both axes, to a pixel of the image over its whole
    length, and the middle stays the middle: all sides are even. Some pixels at the border pay for it.
    """
    even = [side - side % 2 for side in shape]
    longest = max(even)
    scale = longest / even_side(longest * pixel_size_in_angstrom / pixel_size_out_angstrom)
    cut, resized = [], []
    for side in even:
        most = max(1, int(side / scale / 2 + 1e-9))

        def missed(half: int) -> float:
            return round(abs(half * scale - round(half * scale)), 6)

        # Of sizes that cut little more away, the one at which the pixel size fits best.
        half = min(range(most, max(0, most - 3), -1), key=missed)
        cut.append(min(side, 2 * round(half * scale)))
        resized.append(2 * half)
    return (cut[0], cut[1]), (resized[0], resized[1])


def middle(image: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.floating]:
    """Return the middle (height, width) of an image; pixel ``side // 2`` of both is the same."""
    y, x = (side // 2 - wanted // 2 for side, wanted in zip(image.shape, shape, strict=True))
    return image[y : y + shape[0], x : x + shape[1]]


def fourier_resize(image: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Crop (or zero-pad) an image's Fourier transform, so that it fills ``shape`` pixels.

    The mean is kept, and pixel 0 stays at pixel 0: a feature at ``y`` moves to ``y * out / in``.

    Parameters
    ----------
    image
        Real image, shape (height, width), any sides.
    shape
        Even (height, width) of the result.

    Returns
    -------
    NDArray[np.float32]
        The image band-limited strictly below the Nyquist frequency of the coarser of both grids.
    """
    if image.shape == shape:
        return np.ascontiguousarray(image, dtype=np.float32)
    if shape[0] % 2 or shape[1] % 2:
        raise ValueError(f"resized sides must be even, got {shape}")
    spectrum = scipy.fft.rfft2(np.asarray(image, dtype=np.float32), norm="forward")
    rows = min(image.shape[0], shape[0]) // 2
    columns = min(image.shape[1], shape[1]) // 2
    resized = np.zeros((shape[0], shape[1] // 2 + 1), dtype=spectrum.dtype)
    # The Nyquist row and column are left out: a cropped one has lost its mirror image.
    resized[:rows, :columns] = spectrum[:rows, :columns]
    resized[shape[0] - rows + 1 :, :columns] = spectrum[image.shape[0] - rows + 1 :, :columns]
    result: NDArray[np.float32] = scipy.fft.irfft2(resized, s=shape, norm="forward", overwrite_x=True)
    return result


def volume_frequencies(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the cycles a voxel of every element of a volume's real FFT (scipy.fft.rfftn)."""
    axes = [np.fft.fftfreq(side) for side in shape[:2]] + [np.fft.rfftfreq(shape[2])]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.asarray(np.sqrt(z * z + y * y + x * x))
