"""Write the JSON schemas of config.yaml and sessions.tsv, for editors and for the workflow's own folder."""

import json
from pathlib import Path

from emflow.io.files import write_text
from emflow.io.settings import SCHEMAS


def schema(*, output: Path) -> None:
    """Write config.schema.json and sessions.schema.json.

    Parameters
    ----------
    output
        Folder to write to; in the checkout that is workflow/schemas.
    """
    for name, make in SCHEMAS.items():
        write_text(output / name, json.dumps(make(), indent=2) + "\n")
