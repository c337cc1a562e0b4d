"""Checking an export again: what has passed an earlier check, and is the same to the byte, is not parsed.

A live session exports after each batch, and all but the last batch is as it was. ``checked.tsv`` in the
RELION project says of each micrograph what has passed: a digest of the bytes of its coordinate file and of
its rows in particles.star, and of all that these are held against. It is written last; one that is absent,
old or broken costs time and nothing else.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from emflow.io.files import sha256, write_text
from emflow.io.relion_export import WrittenPicks
from emflow.io.relion_images import micrograph_size
from emflow.io.relion_project import check_star_paths
from emflow.io.relion_tables import Unchanged, read_relion_star, stated_diameter
from emflow.relion import coordinate_path

CHECKED = "checked.tsv"
# To be raised when a rule of the check changes: what has passed the old rules may not pass the new ones.
_RULES = 1

Sizes = dict[Path, tuple[int, int] | str]


def check_export(folder: Path, written: Mapping[str, WrittenPicks]) -> list[str]:
    """Check an export that was just written; return one line per problem.

    Parameters
    ----------
    folder
        The RELION project.
    written
        What `emflow.io.relion_export.write_relion_project` returned.
    """
    sizes: Sizes = {}
    circumstances = _circumstances(folder, written, sizes)
    before = _read(folder / CHECKED)
    same = {name for name, digest in circumstances.items() if before.get(name) == digest}
    same &= _as_written(folder, written)
    if not same or check_star_paths(
        [folder], unchanged=Unchanged(same, _one_row_each(folder, written, same), sizes)
    ):
        # Here every row has its own number.
        problems = check_star_paths([folder])
        if problems:
            return problems
    lines = [f"{name}\t{digest}\n" for name, digest in circumstances.items()]
    write_text(folder / CHECKED, "".join(["micrograph\tsha256\n", *lines]))
    return []


def _circumstances(folder: Path, written: Mapping[str, WrittenPicks], sizes: Sizes) -> dict[str, str]:
    """Return, of each micrograph with picks, a digest of these and of what they are held against."""
    tables = [folder / name for name in ("micrographs.star", "micrographs_ctf.star")]
    every = read_relion_star(next(path for path in tables if path.is_file()))
    diameters = [stated_diameter(folder / name) for name in ("autopick.star", "particles.star")]
    found = {}
    for name, picks in written.items():
        path = folder / name
        sizes[path] = micrograph_size(path)
        groups = sorted(constants[0] for constants in every.constants.get(name, ()))
        pixel_sizes = [every.optics.get(group, {}).get("rlnMicrographPixelSize") for group in groups]
        facts = (_RULES, picks, sizes[path], pixel_sizes, diameters)
        found[name] = hashlib.sha256(repr(facts).encode()).hexdigest()
    return found


def _as_written(folder: Path, written: Mapping[str, WrittenPicks]) -> set[str]:
    """Return the micrographs whose picks stand on the disk as they were written."""
    same = set()
    for name, block in _blocks(folder, written):
        path = folder / coordinate_path(name)
        picks = written.get(name)
        if (
            picks is not None
            and hashlib.sha256(block).hexdigest() == picks.particles_sha256
            and path.is_file()
            and sha256(path) == picks.coordinates_sha256
        ):
            same.add(name)
    return same


def _one_row_each(folder: Path, written: Mapping[str, WrittenPicks], same: set[str]) -> Iterator[str]:
    """Yield the lines of particles.star; of these micrographs the first row alone."""
    for name, block in _blocks(folder, written):
        if name in same:
            yield block[: block.index(b"\n") + 1].decode()
        else:
            yield from io.StringIO(block.decode(), newline="\n")


def _blocks(folder: Path, written: Mapping[str, WrittenPicks]) -> Iterator[tuple[str, bytes]]:
    """Yield particles.star in pieces: what stands before the rows, the rows of each micrograph, the end.

    Pieces that belong to no micrograph have no name.
    """
    path = folder / "particles.star"
    if not path.is_file():
        return
    rows = sum(picks.particles_bytes for picks in written.values())
    with path.open("rb") as stream:
        # Behind the rows stands a blank line.
        yield "", stream.read(max(0, path.stat().st_size - rows - 1))
        for name, picks in written.items():
            yield name, stream.read(picks.particles_bytes)
        yield "", stream.read()


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    cells = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return {row[0]: row[1] for row in cells if len(row) == 2}
