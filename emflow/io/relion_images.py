"""The images that RELION's STAR files name: where they lie, and whether they are what the tables say."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import mrcfile

from emflow.errors import BadInputError
from emflow.io.mrc import read_mrc_header
from emflow.io.relion_tables import RelionStar
from emflow.star_check import Problem


def project_of(path: Path, names: Sequence[str]) -> Path | None:
    """Return the RELION project's folder: the next one above the file in which a named file exists."""
    sample = names[:: max(1, len(names) // 20)]
    for folder in path.resolve().parents:
        if any((folder / name).exists() for name in sample):
            return folder
    return None


def micrograph_size(path: Path) -> tuple[int, int] | str:
    """Return height and width of a micrograph, or what is wrong with it; (0, 0) for what is no MRC."""
    if not path.is_file():
        return "does not exist"
    if path.suffix != ".mrc":
        return 0, 0
    try:
        header = read_mrc_header(path)
    except BadInputError as error:
        return str(error)
    return header.height, header.width


def check_stacks(star: RelionStar) -> Iterator[Problem]:
    """Refuse indices, sizes and pixel sizes that are not those of the stacks of extracted particles."""
    project = project_of(star.path, [stack for stack, _ in star.images])
    for (stack, group), highest in star.images.items():
        where = ("particles", "rlnImageName")
        if project is None or not (project / stack).is_file():
            yield Problem(f"{stack} does not exist", *where)
            continue
        try:
            with mrcfile.open(project / stack, header_only=True, permissive=True) as mrc:
                width, height, depth = int(mrc.header.nx), int(mrc.header.ny), int(mrc.header.nz)
                voxel = float(mrc.voxel_size.x)
        except (ValueError, OSError) as error:
            yield Problem(f"{stack} cannot be read: {error}", *where)
            continue
        if highest > depth:
            yield Problem(f"{highest}@{stack}: it holds {depth} images", *where)
        optics = star.optics.get(group, {})
        side = positive(optics.get("rlnImageSize"))
        pixel_size = positive(optics.get("rlnImagePixelSize"))
        if side and (side != width or side != height):
            message = f"{side:g}, and the images of {stack} have {width} x {height} pixels"
            yield Problem(message, "optics", "rlnImageSize")
        if pixel_size and voxel > 0 and abs(pixel_size / voxel - 1) > 0.01:
            message = f"{pixel_size:g}, and the header of {stack} says {voxel:g}"
            yield Problem(message, "optics", "rlnImagePixelSize")


def positive(text: str | None) -> float:
    """Return a number that a table states, 0 when it states none."""
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0
