"""Which atomic models a folder holds: found without reading them, and without what that needs."""

from pathlib import Path

from emflow.errors import SettingError

SUFFIXES = (".pdb", ".ent", ".cif", ".pdb.gz", ".ent.gz", ".cif.gz")


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
