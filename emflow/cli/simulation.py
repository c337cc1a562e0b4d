"""What the simulating commands share: an output folder of their own, and the limits of images."""

from pathlib import Path

from emflow.errors import SettingError


def check_output(output: Path) -> None:
    """Refuse to write among what is there already."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingError(f"--output {output} is there already; choose another folder, or remove it")


def check_images(
    shape: tuple[int, int],
    pixel_size: float,
    diameter: float | None,
    defocus: tuple[float, float] | None,
    *,
    shortest_side: int,
) -> None:
    """Refuse images that no microscope gives, and particles that do not fit them."""
    if not all(shortest_side <= side <= 16384 for side in shape):
        raise SettingError(f"--shape {shape[0]} {shape[1]}: each side from {shortest_side} to 16384 pixels")
    if not 0.2 <= pixel_size <= 100:
        raise SettingError(f"--pixel-size {pixel_size:g}: from 0.2 to 100 angstrom")
    if diameter is not None and not 4 <= diameter / pixel_size <= min(shape):
        raise SettingError(
            f"--diameter {diameter:g}: {diameter / pixel_size:g} pixels; from 4 to the image's shorter side"
        )
    if defocus is not None and not 100 <= defocus[0] <= defocus[1] <= 100_000:
        raise SettingError(
            f"--defocus {defocus[0]:g} {defocus[1]:g}: least and most underfocus, 100 to 100000 angstrom"
        )
