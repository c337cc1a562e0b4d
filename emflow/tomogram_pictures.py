"""Pictures of a tomogram for a person: a slice as it is, and the same with its classes and picks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emflow.overlay import CAPTION_PIXELS, draw_scale_bar, to_grey
from emflow.tomogram_classes import CLASSES, LabelClass

_OPACITY = 0.45
_GAP_PIXELS = 6
_TEXT = (235, 235, 235)
# No class of a segmentation has it.
_TEMPLATE_COLOR = (255, 255, 255)


@dataclass(frozen=True)
class SlicePicks:
    """Picks of one class near a slice: ``points_xy`` (n, 2) in voxels, and which picker found them."""

    name: str
    points_xy: NDArray[np.float64]
    by_template: bool = False

    def color(self, classes: Sequence[LabelClass]) -> tuple[int, int, int]:
        """Return the colour of the class; what a template found has one of its own."""
        known = {} if self.by_template else {each.name: each.color for each in classes}
        return known.get(self.name, _TEMPLATE_COLOR)

    def mark(
        self,
        pen: ImageDraw.ImageDraw,
        middle: tuple[float, float],
        radius: float,
        color: tuple[int, int, int],
    ) -> None:
        """Draw one: a circle from the segmentation, a square from the template; dark about it, to be seen."""
        shape = pen.rectangle if self.by_template else pen.ellipse
        for outline, width, reach in (((0, 0, 0), 5, radius + 1), (color, 3, radius)):
            box = (middle[0] - reach, middle[1] - reach, middle[0] + reach, middle[1] + reach)
            shape(box, outline=outline, width=width)


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
    picks: Sequence[SlicePicks],
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
    picks
        Those of each class and picker, named and counted below the picture.
    radius_voxels
        Of circles, and of squares from their middle to their sides.
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
    for each in picks:
        for x, y in (each.points_xy + 0.5) * factor:
            each.mark(draw, (float(x), float(y)), radius, each.color(classes))
    draw_scale_bar(draw, size, factor / pixel_size_angstrom)
    picture = Image.new("RGB", (2 * size[0] + _GAP_PIXELS, size[1] + 3 * CAPTION_PIXELS), (20, 20, 20))
    picture.paste(left, (0, 0))
    picture.paste(right, (size[0] + _GAP_PIXELS, 0))
    font = ImageFont.load_default(size=16)
    pen = ImageDraw.Draw(picture)
    pen.text((10, size[1] + 8), caption, fill=_TEXT, font=font)
    present = {int(value) for value in np.unique(labels)}
    legend(pen, (10, size[1] + CAPTION_PIXELS + 4), {c.name: c.color for c in classes if c.value in present})
    _picks_legend(pen, (10, size[1] + 2 * CAPTION_PIXELS + 4), picks, classes)
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
        pen.text((x + 20, y), name, fill=_TEXT, font=font)
        x += 40 + round(pen.textlength(name, font=font))


def _picks_legend(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    picks: Sequence[SlicePicks],
    classes: Sequence[LabelClass],
) -> None:
    """Write what each mark is, and how many there are."""
    font = ImageFont.load_default(size=16)
    x, y = corner
    for each in picks:
        each.mark(pen, (x + 7, y + 10), 6, each.color(classes))
        picker = "template" if each.by_template else "segmentation"
        text = f"{len(each.points_xy)} {each.name} ({picker})"
        pen.text((x + 20, y), text, fill=_TEXT, font=font)
        x += 40 + round(pen.textlength(text, font=font))
