"""What RELION expects of names: pure rules that every stage shares."""

import hashlib
import re

LINKS = "Micrographs"
"""Folder of the RELION project in which a link leads to each micrograph."""

# RELION takes '@' for a stack's index, ':' for a format, blanks and quotes for the end of a value.
_UNSAFE = re.compile(r"[^A-Za-z0-9._/+=-]")
# RELION cuts a leading Type/jobNNN/ off a name when it looks for the coordinates.
_JOB = re.compile(r"(?:^|(?<=/))job(?=\d+/)")


def relion_micrograph_name(name: str) -> str:
    """Return rlnMicrographName of a micrograph, relative to the RELION project: the path of its link.

    Parameters
    ----------
    name
        The micrograph's name in its session: the path below the glob's fixed part.

    Returns
    -------
    str
        ``Micrographs/<name>``, with ``.mrc`` appended when the name ends otherwise. Characters that RELION
        does not read in a name, and folders called jobNNN, are replaced, and a digest of the name keeps
        the result unique.
    """
    safe = _JOB.sub("job-", _UNSAFE.sub("_", name))
    if safe != name:
        stem, dot, suffix = safe.rpartition(".")
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        safe = f"{stem}_{digest}{dot}{suffix}" if dot and "/" not in suffix else f"{safe}_{digest}"
    return f"{LINKS}/{safe}" if safe.endswith(".mrc") else f"{LINKS}/{safe}.mrc"
