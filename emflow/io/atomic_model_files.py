"""Which atomic models a folder holds, and what they say of themselves: without reading their atoms."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from emflow.errors import BadInputError, SettingError
from emflow.kept_apart import kept_apart

SUFFIXES = (".pdb", ".ent", ".cif", ".pdb.gz", ".ent.gz", ".cif.gz")
_RECORDS = ("HEADER", "TITLE", "COMPND", "KEYWDS")
_CATEGORIES = ("_entry.", "_struct.", "_struct_keywords.", "_entity.", "_entity_name_com.")


def atomic_model_files(folder: Path) -> dict[str, Path]:
    """Return the models of a folder and those below it, by name and sorted; of two of one name the first.

    Raises
    ------
    SettingError
        If there is no such folder or no model in it.
    """
    if not folder.is_dir():
        raise SettingError(f"--models {folder} is not a folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.name.lower().endswith(SUFFIXES):
            found.setdefault(path.name.split(".")[0].lower(), path)
    if not found:
        raise SettingError(f"--models {folder} has no file ending in {', '.join(SUFFIXES)}")
    return dict(sorted(found.items()))


def check_learnable(files: Mapping[str, Path]) -> None:
    """Refuse to learn from structures that are kept apart (see `emflow.kept_apart`).

    Raises
    ------
    SettingError
        Naming the file, and what it is.
    BadInputError
        If a file cannot be read.
    """
    for name, path in files.items():
        entry, said = _said(path)
        kept = kept_apart(name, "") or kept_apart(entry, said)
        if kept is not None:
            raise SettingError(
                f"--models: {path} is kept apart, as {kept}: models are judged by such structures; take it "
                "out of the folder, or give --allow-kept-apart for a model of your own"
            )


def _said(path: Path) -> tuple[str, str]:
    """Return a file's PDB entry, empty where it states none, and its title, keywords and molecules' names."""
    is_cif = ".cif" in path.name.lower()
    try:
        lines = list(_head(path, "_atom_site." if is_cif else ("ATOM", "HETATM")))
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from None
    if not is_cif:
        entry = next((line[62:66].strip() for line in lines if line.startswith("HEADER")), "")
        # Columns 11 to 70 hold the text; what is longer goes on in the next line.
        return entry, " ".join(line[10:70].strip() for line in lines if line.startswith(_RECORDS))
    entry = next((line.split()[-1] for line in lines if line.startswith("_entry.id")), "")
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("#"):
            blocks.append([])
        else:
            blocks[-1].append(line)
    told = [block for block in blocks if any(line.startswith(_CATEGORIES) for line in block)]
    return entry, " ".join(line.strip() for block in told for line in block)


def _head(path: Path, end: str | tuple[str, ...]) -> Iterator[str]:
    """Yield a file's lines, gzipped or not, up to its atoms."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if line.startswith(end):
                return
            yield line
