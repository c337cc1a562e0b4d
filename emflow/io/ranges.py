"""What of the simulator's randomisation a user has otherwise: a YAML file, or YAML in the flag itself."""

from pathlib import Path
from typing import Any

import yaml

from emflow.errors import SettingError
from emflow.simulation_ranges import SimulationRanges, changed_ranges


def read_ranges(given: str | None, ranges: SimulationRanges) -> tuple[SimulationRanges, dict[str, Any]]:
    """Return ranges with a user's values, and what these are, for a model card.

    Parameters
    ----------
    given
        Path of a YAML file, or the YAML itself where it begins with a brace; None changes nothing. Keys are
        fields of `emflow.simulation.SimulationRanges`, values a number or as many numbers as there.
    ranges
        What a field is that is not named.

    Raises
    ------
    SettingError
        When that is no such mapping, or a key or value of it fits no field; names the file and the key.
    """
    if given is None:
        return ranges, {}
    inline = given.lstrip().startswith("{")
    source = "--ranges" if inline else f"--ranges {given}"
    try:
        content = yaml.safe_load(given if inline else Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{source}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{source}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SettingError(f"{source}: should hold keys such as defocus_angstrom: [5000, 30000]")
    return changed_ranges(ranges, content, f"{source}: "), {"ranges": content}
