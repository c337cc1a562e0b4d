"""Names of the point groups that a particle may have; config reads them, so nothing heavy is imported."""

import re

SYMMETRIES = "C1, C2 ..., D1, D2 ..., T, O, I, I1, I2, I3 or I4"
_PATTERN = r"[CD][1-9]\d?|T|O|I[1-4]?"


def checked_symmetry(name: str) -> str:
    """Return a symmetry's name in capitals.

    Raises
    ------
    ValueError
        If it is none of `SYMMETRIES`.
    """
    plain = name.strip().upper()
    if re.fullmatch(_PATTERN, plain) is None:
        raise ValueError(f"{name!r} is none of {SYMMETRIES}")
    return "I2" if plain == "I" else plain
