"""A file of the simulator's ranges: what of its randomisation a user has otherwise."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from emflow.errors import SettingError
from emflow.simulation import SimulationRanges


def read_ranges(path: Path | None, ranges: SimulationRanges) -> tuple[SimulationRanges, dict[str, Any]]:
    """Return ranges with the values of a YAML file, and what the file says, for a model card.

    Parameters
    ----------
    path
        Keys are fields of `emflow.simulation.SimulationRanges`, values a number or as many numbers as there;
        None changes nothing.
    ranges
        What a field is that the file does not name.

    Raises
    ------
    SettingError
        When the file is no such mapping, or a key or value of it fits no field; names the file and the key.
    """
    if path is None:
        return ranges, {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"--ranges {path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"--ranges {path}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SettingError(f"--ranges {path}: should hold keys such as defocus_angstrom: [5000, 30000]")
    known = {field.name for field in fields(SimulationRanges)}
    changed: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise SettingError(f"--ranges {path}: {key} is no range of the simulator")
        changed[key] = _like(getattr(ranges, key), value, f"--ranges {path}: {key}")
    return replace(ranges, **changed), {"ranges": content}


def _like(default: object, value: object, name: str) -> object:
    """Return a value in the type of the default: a number, or as many of them."""
    if isinstance(default, tuple):
        free = name.endswith(("voltages_kilovolt", "voltage_weights"))
        if not isinstance(value, list) or not value or not (free or len(value) == len(default)):
            raise SettingError(f"{name}: should be a list of {len(default)} numbers, not {value!r}")
        numbers = tuple(_like(default[0], one, name) for one in value)
        if not free and list(numbers) != sorted(numbers):  # type: ignore[type-var]
            raise SettingError(f"{name}: should be the least and the most, not {value!r}")
        return numbers
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise SettingError(f"{name}: should be a number of at least 0, not {value!r}")
    if name.endswith("_probability") and value > 1:
        raise SettingError(f"{name}: should be from 0 to 1, not {value!r}")
    return type(default)(value)  # type: ignore[call-arg]
