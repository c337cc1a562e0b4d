"""Pictures of a tomogram for a person: a slice as it is, and the same with its classes and picks."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emflow.overlay import CAPTION_PIXELS, colour, draw_scale_bar, to_grey
from emflow.tomogram_classes import CLASSES, LabelClass

_OPACITY = 0.45
_GAP_PIXELS = 6


def coloured(
    grey: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[LabelClass] = CLASSES
) -> NDArray[np.uint8]:
    """Return a grey picture (h, w) with its labels (h, w) laid over it in their colours, (h, w, 3)."""
    picture = np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)
    for each in classes:
        if each.value:
            inside = labels == each.value
            picture[inside] += _OPACITY * (np.array(each.color, dtype=np.float32) - picture[inside])
    return np.asarray(picture.clip(0, 255).astype(np.uint8))


def draw_slice(
    image: NDArray[np.floating],
    labels: NDArray[np.uint8],
    *,
    points_xy: NDArray[np.float64],
    figures_of_merit: NDArray[np.float64],
    radius_voxels: float,
    pixel_size_angstrom: float,
    caption: str,
    classes: Sequence[LabelClass] = CLASSES,
    side: int = 700,
) -> Image.Image:
    """Draw a slice of a tomogram beside the same with classes and picks.

    Parameters
    ----------
    image, labels
        Shape (h, w).
    points_xy
        Picks of the slice (n, 2), in voxels.
    radius_voxels
        Of the circles.
    side
        Pixels of the longer side of one of the two pictures.

    Returns
    -------
    Image.Image
        RGB, row 0 of the slice at the top.
    """
    height, width = image.shape
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    grey = to_grey(image)
    left = Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS).convert("RGB")
    right = Image.fromarray(coloured(grey, labels, classes)).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(right)
    radius = radius_voxels * factor
    for (x, y), merit in zip(points_xy + 0.5, figures_of_merit, strict=True):
        middle = x * factor, y * factor
        box = (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius)
        draw.ellipse(box, outline=colour(float(merit)), width=2)
    draw_scale_bar(draw, size, factor / pixel_size_angstrom)
    picture = Image.new("RGB", (2 * size[0] + _GAP_PIXELS, size[1] + 2 * CAPTION_PIXELS), (20, 20, 20))
    picture.paste(left, (0, 0))
    picture.paste(right, (size[0] + _GAP_PIXELS, 0))
    font = ImageFont.load_default(size=16)
    pen = ImageDraw.Draw(picture)
    pen.text((10, size[1] + 8), caption, fill=(235, 235, 235), font=font)
    present = {int(value) for value in np.unique(labels)}
    legend(pen, (10, size[1] + CAPTION_PIXELS + 4), {c.name: c.color for c in classes if c.value in present})
    return picture


def legend(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], colors: Mapping[str, tuple[int, int, int]]
) -> None:
    """Write the names of classes, each after a square of its colour."""
    font = ImageFont.load_default(size=16)
    x, y = corner
    for name, color in colors.items():
        if name == "background":
            continue
        pen.rectangle((x, y + 3, x + 14, y + 17), fill=color)
        pen.text((x + 20, y), name, fill=(235, 235, 235), font=font)
        x += 40 + round(pen.textlength(name, font=font))
