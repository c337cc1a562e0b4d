"""Pictures for a person: picks drawn on a micrograph, with a scale bar and a legend."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emflow.metadata import Picks

# Figure of merit 0..1 from orange to green: told apart by all kinds of colour vision, and on grey.
_LOW = np.array([253, 174, 97])
_HIGH = np.array([26, 230, 120])
CAPTION_PIXELS = 34
_BARS_ANGSTROM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


def to_grey(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Map an image (height, width) to 8 bits, its 0.5 to 99.5 percentiles to black and white."""
    low, high = np.percentile(image, (0.5, 99.5))
    scaled = (np.asarray(image, dtype=np.float32) - low) / max(float(high - low), 1e-6)
    grey: NDArray[np.uint8] = (255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return grey


def colour(figure_of_merit: float) -> tuple[int, int, int]:
    """Return the colour of a figure of merit, 0..1."""
    red, green, blue = (_LOW + (_HIGH - _LOW) * min(1.0, max(0.0, figure_of_merit))).astype(int)
    return int(red), int(green), int(blue)


def draw_picks(
    image: NDArray[np.floating],
    picks: Picks,
    *,
    unbinned_shape: tuple[int, int],
    pixel_size_angstrom: float,
    diameter_angstrom: float,
    caption: str,
    longest_side: int = 1200,
) -> Image.Image:
    """Draw circles of the particle's diameter around the picks.

    Parameters
    ----------
    image
        The micrograph at any binning, shape (height, width).
    picks
        In unbinned pixels.
    unbinned_shape
        (height, width) of the micrograph.
    pixel_size_angstrom
        Of the image.
    diameter_angstrom
        Of the circles.
    caption
        One line below the picture.
    longest_side
        Pixels of the picture's longer side.

    Returns
    -------
    Image.Image
        RGB; row 0 of the micrograph at the top, as RELION displays it.
    """
    height, width = image.shape
    factor = longest_side / max(height, width)
    size = (round(width * factor), round(height * factor))
    grey = Image.fromarray(to_grey(image)).resize(size, Image.Resampling.LANCZOS).convert("RGB")
    picture = Image.new("RGB", (size[0], size[1] + CAPTION_PIXELS), (20, 20, 20))
    picture.paste(grey, (0, 0))
    draw = ImageDraw.Draw(picture)
    radius = 0.5 * diameter_angstrom / pixel_size_angstrom * factor
    scale_y, scale_x = size[1] / unbinned_shape[0], size[0] / unbinned_shape[1]
    # Pixel centres are at integers: a pixel's middle is half a pixel further on the canvas.
    for x, y, merit in zip(picks.x + 0.5, picks.y + 0.5, picks.figure_of_merit, strict=True):
        centre_x, centre_y = x * scale_x, y * scale_y
        box = (centre_x - radius, centre_y - radius, centre_x + radius, centre_y + radius)
        draw.ellipse(box, outline=colour(float(merit)), width=2)
    draw_scale_bar(draw, size, factor / pixel_size_angstrom)
    font = ImageFont.load_default(size=16)
    draw.text((10, size[1] + 8), caption, fill=(235, 235, 235), font=font)
    _draw_legend(draw, size, font)
    return picture


def draw_rings(picture: NDArray[np.uint8], caption: str) -> Image.Image:
    """Return the picture of a CTF fit (side, side) with one line below it that says what was found."""
    side = max(picture.shape[1], 640)  # room for the caption
    drawn = Image.new("L", (side, side + CAPTION_PIXELS), 20)
    drawn.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (0, 0))
    font = ImageFont.load_default(size=16)
    ImageDraw.Draw(drawn).text((10, side + 8), caption, fill=235, font=font)
    return drawn


def draw_scale_bar(draw: ImageDraw.ImageDraw, size: tuple[int, int], pixels_per_angstrom: float) -> None:
    """Draw a bar of a round length in the lower right corner of a picture of ``size`` (width, height)."""
    wanted = size[0] / 5 / pixels_per_angstrom
    length = max((bar for bar in _BARS_ANGSTROM if bar <= wanted), default=_BARS_ANGSTROM[0])
    right, bottom = size[0] - 20, size[1] - 20
    left = right - length * pixels_per_angstrom
    draw.rectangle((left - 8, bottom - 34, right + 8, bottom + 10), fill=(0, 0, 0))
    draw.rectangle((left, bottom - 4, right, bottom), fill=(255, 255, 255))
    text = f"{length // 10} nm" if length >= 10 else f"{length} A"
    draw.text((left, bottom - 28), text, fill=(255, 255, 255), font=ImageFont.load_default(size=18))


def _draw_legend(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    bar, top = 120, size[1] + 10
    left = size[0] - bar - 40
    text = "figure of merit 0"
    draw.text((left - 8 - draw.textlength(text, font=font), top - 2), text, fill=(235, 235, 235), font=font)
    for offset in range(bar):
        draw.line((left + offset, top, left + offset, top + 14), fill=colour(offset / (bar - 1)))
    draw.text((left + bar + 8, top - 2), "1", fill=(235, 235, 235), font=font)
