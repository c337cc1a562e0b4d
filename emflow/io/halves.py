"""The micrographs that a denoiser is trained on: sums of even and of odd frames, or single ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emflow.errors import SettingError
from emflow.io.star import read_star

EVEN, ODD = "_even.mrc", "_odd.mrc"
_NOT_A_MICROGRAPH = (EVEN, ODD, "_noDW.mrc")


@dataclass(frozen=True)
class Halves:
    """The two files of a micrograph."""

    name: str
    even: Path
    odd: Path


def find_halves(source: Path) -> list[Halves]:
    """Find pairs of sums of even and odd frames, by name.

    Parameters
    ----------
    source
        A folder, searched all the way down, with ``NAME_even.mrc`` and ``NAME_odd.mrc`` side by side (as
        correct_motion writes them) or ``even/NAME.mrc`` and ``odd/NAME.mrc``; or a RELION STAR file with
        ``rlnMicrographNameEven`` and ``rlnMicrographNameOdd``, whose paths start from the working folder.

    Raises
    ------
    SettingError
        When there is no such file or folder, no pair in it, or an odd half is missing.
    """
    if source.is_file():
        columns = ("rlnMicrographNameEven", "rlnMicrographNameOdd")
        even, odd = (_column(source, column) for column in columns)
        pairs = [
            Halves(one.name.removesuffix(EVEN), one, other) for one, other in zip(even, odd, strict=True)
        ]
    else:
        pairs = [
            Halves(path.name.removesuffix(EVEN), path, path.with_name(path.name.removesuffix(EVEN) + ODD))
            for path in _below(source, f"*{EVEN}")
        ]
        pairs += [
            Halves(path.stem, path, path.parent.with_name("odd") / path.name)
            for path in _below(source, "*.mrc")
            if path.parent.name == "even"
        ]
    if not pairs:
        raise SettingError(
            f"{source}: no sums of even and odd frames; set motion.halves to true and run correct_motion, or "
            "use --micrographs"
        )
    for one in pairs:
        for path in (one.even, one.odd):
            if not path.is_file():
                raise SettingError(f"{path}: there is no such file, the other half of {one.name} is there")
    return sorted(pairs, key=lambda one: (one.name, one.even))


def find_micrographs(source: Path) -> list[Path]:
    """Find micrographs below a folder, or those that a RELION STAR file names.

    Raises
    ------
    SettingError
        When there is none.
    """
    if source.is_file():
        return _column(source, "rlnMicrographName")
    found = [path for path in _below(source, "*.mrc") if not path.name.endswith(_NOT_A_MICROGRAPH)]
    if not found:
        raise SettingError(f"{source}: no micrograph (*.mrc) in this folder")
    return found


def _below(folder: Path, pattern: str) -> Sequence[Path]:
    if not folder.is_dir():
        raise SettingError(f"{folder}: there is no such file or folder")
    return sorted(folder.rglob(pattern))


def _column(star: Path, column: str) -> list[Path]:
    for table in read_star(star).values():
        if column in table:
            return [Path(str(name)) for name in table[column]]
    raise SettingError(f"{star}: no table with {column}")
