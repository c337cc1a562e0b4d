"""Where the images of a tilt series are: movies by their name, sections of a stack."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from emflow.errors import BadInputError
from emflow.io.movies import EER_SUFFIXES, MRC_SUFFIXES, TIFF_SUFFIXES
from emflow.io.movies.mrc import read_layout
from emflow.io.tilt_series.exposures import Exposure

IMAGE_SUFFIXES = (*MRC_SUFFIXES, *TIFF_SUFFIXES, *EER_SUFFIXES)


def files_of(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the images in some folders by name; the first folder goes before the others."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder)]
        except OSError:
            continue
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES):
                found.setdefault(name, folder / name)
    return found


def find_movie(files: Mapping[str, Path], name: str) -> Path | None:
    """Return the file of that name, else one of another format: what became of the movie keeps its name."""
    if name in files:
        return files[name]
    stem = Path(name).stem if name.lower().endswith(IMAGE_SUFFIXES) else name
    return next((files[stem + suffix] for suffix in IMAGE_SUFFIXES if stem + suffix in files), None)


def with_section(exposure: Exposure) -> Exposure:
    """Return a section of a stack with what the stack's header says, or with why it is no good."""
    try:
        layout = read_layout(exposure.path)
    except BadInputError as error:
        return replace(exposure, reason=f"{exposure.path} {error}")
    if exposure.section is not None and not 0 <= exposure.section < layout.frames:
        return replace(exposure, reason=f"{exposure.path} has {layout.frames} sections, none of this number")
    height, width = layout.shape
    pixel_size = exposure.pixel_size_angstrom or layout.pixel_size_angstrom
    return replace(exposure, height=height, width=width, pixel_size_angstrom=pixel_size)
