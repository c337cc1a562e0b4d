"""Picking: a heatmap of particle centres from a network, and the peaks in it.

The network works where a particle's diameter is a fixed number of pixels, whatever the microscope's pixel
size. It answers two logits a pixel: a particle's centre is here; this is junk (ice crystals, carbon,
aggregates). From the heat to the picks all is float32 or better: a sigmoid in half precision saturates, and
plateaus would give duplicates.
"""

from typing import NamedTuple

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import expit

from emflow.errors import SettingError
from emflow.fourier import fourier_resize, resized_shape
from emflow.inference import infer
from emflow.metadata import Picks
from emflow.model_card import Calibration, ModelCard
from emflow.networks import UNet
from emflow.preprocessing import normalise

# Beyond this an upsampled image holds nothing that the network could use.
MOST_UPSAMPLING = 2.0
# Peaks closer than this to a higher one are its shoulders.
SHOULDER_DIAMETERS = 0.33
# High: the heat is taught to be low on junk as well, while clumps of good particles look like junk.
JUNK_PROBABILITY = 0.7


class Peaks(NamedTuple):
    """Maxima of a heatmap, best first: ``y``, ``x`` in its pixels and ``logit``, float64 of shape (n,)."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    logit: NDArray[np.float64]


def working_pixel_size(
    image_pixel_size_angstrom: float, diameter_angstrom: float, pixels_per_diameter: float
) -> float:
    """Return the pixel size in angstrom at which a picker looks at an image.

    It gives the diameter ``pixels_per_diameter`` pixels, unless the image is more than twice too coarse for
    that: then it stays at half the image's pixel size, and small particles are picked at a smaller scale than
    the network was trained for.

    Raises
    ------
    SettingError
        When the pixel size or the diameter is not positive, or the particle is under four pixels wide.
    """
    if not image_pixel_size_angstrom > 0 or not diameter_angstrom > 0:
        raise SettingError(
            f"diameter {diameter_angstrom:g} and pixel size {image_pixel_size_angstrom:g} must be positive"
        )
    if diameter_angstrom < 4 * image_pixel_size_angstrom:
        raise SettingError(
            f"a particle of {diameter_angstrom:g} A is under four pixels of {image_pixel_size_angstrom:g} A: "
            "use a finer tiles.pixel_size_angstrom or a larger diameter"
        )
    wanted = diameter_angstrom / pixels_per_diameter
    return max(wanted, image_pixel_size_angstrom / MOST_UPSAMPLING)


def find_peaks(
    heat: NDArray[np.float32], *, shoulder_pixels: float, minimum_distance_pixels: float, floor: float
) -> Peaks:
    """Find the maxima of a heatmap of logits.

    A peak is the highest pixel within ``shoulder_pixels`` (Chebyshev distance) and above ``floor``. From the
    best down, each peak removes those within ``minimum_distance_pixels`` (Euclidean). What is left is placed
    between the pixels by a parabola through each axis.

    Parameters
    ----------
    heat
        Logits, shape (height, width).

    Returns
    -------
    Peaks
        Highest first, then by y, then by x.
    """
    size = 2 * max(1, round(shoulder_pixels)) + 1
    is_peak = (heat == scipy.ndimage.maximum_filter(heat, size=size, mode="nearest")) & (heat > floor)
    rows, columns = np.nonzero(is_peak)
    order = np.lexsort((columns, rows, -heat[rows, columns]))
    rows, columns = rows[order], columns[order]
    keep = _suppress(np.column_stack([rows, columns]).astype(np.float64), minimum_distance_pixels)
    rows, columns = rows[keep], columns[keep]
    offset_y, offset_x = _parabola_offsets(heat, rows, columns)
    return Peaks(rows + offset_y, columns + offset_x, heat[rows, columns].astype(np.float64))


def _suppress(points: NDArray[np.float64], distance: float) -> NDArray[np.bool_]:
    """Return which of the points, best first, have no better kept point closer than ``distance``."""
    keep = np.ones(len(points), dtype=np.bool_)
    if len(points) < 2:
        return keep
    tree = cKDTree(points)
    neighbours = tree.query_ball_point(points, np.nextafter(distance, 0))
    for index, near in enumerate(neighbours):
        if keep[index]:
            keep[[other for other in near if other > index]] = False
    return keep


def _parabola_offsets(
    heat: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (y, x) offsets, at most half a pixel, of the vertices of parabolas through three pixels."""
    centre = heat[rows, columns].astype(np.float64)
    offsets = []
    for axis, (dy, dx) in enumerate(((1, 0), (0, 1))):
        last = heat.shape[axis] - 1
        position = (rows, columns)[axis]
        inside = (position > 0) & (position < last)
        before = heat[np.maximum(rows - dy, 0), np.maximum(columns - dx, 0)].astype(np.float64)
        after = heat[
            np.minimum(rows + dy, heat.shape[0] - 1), np.minimum(columns + dx, heat.shape[1] - 1)
        ].astype(np.float64)
        curvature = before - 2 * centre + after
        usable = inside & (curvature < 0)
        offset = np.where(usable, 0.5 * (before - after) / np.where(usable, curvature, -1.0), 0.0)
        offsets.append(np.clip(offset, -0.5, 0.5))
    return offsets[0], offsets[1]


def figure_of_merit(logit: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Map peak logits to calibrated probabilities of a particle, 0..1, order kept."""
    return np.asarray(expit(calibration.slope * logit + calibration.intercept), dtype=np.float64)


def logit_of_figure_of_merit(floor: float, calibration: Calibration) -> float:
    """Return the peak logit that :func:`figure_of_merit` maps to ``floor`` (in 0..1)."""
    if floor <= 0:
        return -np.inf
    return float((np.log(floor / (1 - floor)) - calibration.intercept) / calibration.slope)


def working_image(
    image: NDArray[np.float32],
    *,
    image_pixel_size_angstrom: float,
    diameter_angstrom: float,
    card: ModelCard,
) -> NDArray[np.float32]:
    """Return an image (height, width) as a picker looks at it: at its scale, normalised and clipped.

    Raises
    ------
    SettingError
        When the diameter or the card does not fit the image.
    """
    if card.pixels_per_diameter is None:
        raise SettingError("model card: pixels_per_diameter is missing")
    pixel_size = working_pixel_size(image_pixel_size_angstrom, diameter_angstrom, card.pixels_per_diameter)
    return normalise(fourier_resize(image, resized_shape(image.shape, image_pixel_size_angstrom, pixel_size)))


def pick_micrograph(
    image: NDArray[np.float32],
    *,
    image_pixel_size_angstrom: float,
    unbinned_shape: tuple[int, int],
    diameter_angstrom: float,
    network: UNet,
    card: ModelCard,
    minimum_distance_diameters: float = 0.7,
    floor: float = 0.05,
    device: str | torch.device = "cpu",
) -> Picks:
    """Pick the particles of one micrograph.

    Parameters
    ----------
    image
        Micrograph at any scale, shape (height, width), protein dark.
    image_pixel_size_angstrom
        Pixel size of ``image``.
    unbinned_shape
        (height, width) of the unbinned micrograph, whose pixels the picks are given in.
    diameter_angstrom
        Of the particle.
    network, card
        A picker and its card, as :func:`emflow.io.model.load_model` gives them; the network on ``device``.
    minimum_distance_diameters
        Of two candidates closer than this the better one stays.
    floor
        Candidates with a lower figure of merit are left out.

    Returns
    -------
    Picks
        Best first, then by y, then by x. Candidates on junk, and those whose centre is within half a
        diameter of the edge, are left out.

    Raises
    ------
    SettingError
        When the diameter or the card does not fit the image.
    """
    return pick_working_image(
        working_image(
            image,
            image_pixel_size_angstrom=image_pixel_size_angstrom,
            diameter_angstrom=diameter_angstrom,
            card=card,
        ),
        image_pixel_size_angstrom=image_pixel_size_angstrom,
        unbinned_shape=unbinned_shape,
        diameter_angstrom=diameter_angstrom,
        network=network,
        card=card,
        minimum_distance_diameters=minimum_distance_diameters,
        floor=floor,
        device=device,
    )


def pick_working_image(
    seen: NDArray[np.float32],
    *,
    image_pixel_size_angstrom: float,
    unbinned_shape: tuple[int, int],
    diameter_angstrom: float,
    network: UNet,
    card: ModelCard,
    minimum_distance_diameters: float = 0.7,
    floor: float = 0.05,
    device: str | torch.device = "cpu",
) -> Picks:
    """Pick the particles of one micrograph from its `working_image`; all else is `pick_micrograph`'s.

    ``image_pixel_size_angstrom`` is that of the image which the working image was made from.

    Raises
    ------
    SettingError
        When the diameter or the card does not fit the image.
    """
    if card.calibration is None or card.pixels_per_diameter is None:
        raise SettingError("model card: calibration or pixels_per_diameter is missing")
    pixel_size = working_pixel_size(image_pixel_size_angstrom, diameter_angstrom, card.pixels_per_diameter)
    shape = seen.shape
    heat, junk = infer(network, seen, device=device)

    diameter_pixels = diameter_angstrom / pixel_size
    peaks = find_peaks(
        heat,
        shoulder_pixels=SHOULDER_DIAMETERS * diameter_pixels,
        minimum_distance_pixels=minimum_distance_diameters * diameter_pixels,
        floor=logit_of_figure_of_merit(floor, card.calibration),
    )
    scale_y, scale_x = unbinned_shape[0] / shape[0], unbinned_shape[1] / shape[1]
    # The true pixel size of this axis, as the image's sides were rounded to even ones.
    radius_y = diameter_pixels / 2 * scale_y
    radius_x = diameter_pixels / 2 * scale_x
    y, x = peaks.y * scale_y, peaks.x * scale_x
    on_junk = (
        expit(junk[np.rint(peaks.y).astype(np.intp), np.rint(peaks.x).astype(np.intp)]) > JUNK_PROBABILITY
    )
    inside = (
        (y >= radius_y)
        & (y <= unbinned_shape[0] - 1 - radius_y)
        & (x >= radius_x)
        & (x <= unbinned_shape[1] - 1 - radius_x)
    )
    merit = figure_of_merit(peaks.logit, card.calibration)
    keep = np.flatnonzero(inside & ~on_junk & (merit >= floor))
    order = keep[np.lexsort((x[keep], y[keep], -merit[keep]))]
    return Picks(x=x[order], y=y[order], figure_of_merit=merit[order])
