"""Reading and writing a session folder's settings: config/config.yaml and config/sessions.tsv."""

import csv
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from emflow.config import SESSION_COLUMNS, Config, Session, parse_config, parse_session
from emflow.errors import SettingError
from emflow.io.files import write_text

CONFIG = Path("config/config.yaml")
SESSIONS = Path("config/sessions.tsv")


def read_config(path: Path = CONFIG) -> Config:
    """Read and check config.yaml.

    Raises
    ------
    SettingError
        If it is absent, no YAML, or holds a wrong or unknown key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(f"{path}: not found; emflow init makes a session folder that has one") from None
    except yaml.YAMLError as error:
        raise SettingError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if values is not None and not isinstance(values, dict):
        raise SettingError(f"{path}: should hold sections such as tiles: and pick:")
    return parse_config(values or {}, str(path))


def read_sessions(path: Path = SESSIONS, *, may_be_none: bool = False) -> list[Session]:
    """Read and check sessions.tsv, which must list a session unless there ``may_be_none``.

    Raises
    ------
    SettingError
        If it is absent or empty, a column is unknown, a row is wrong, or a name stands twice.
    """
    if not path.is_file():
        raise SettingError(f"{path}: not found; emflow init makes a session folder that has one")
    with path.open(encoding="utf-8", newline="") as stream:
        lines = [line for line in stream if line.strip() and not line.startswith("#")]
    records = list(csv.DictReader(lines, delimiter="\t"))
    for record in records:
        if None in record or None in record.values():
            raise SettingError(f"{path}: a row has not as many cells as the header; separate them by tabs")
    sessions = [parse_session(record, f"{path} row {n}") for n, record in enumerate(records, 1)]
    if not sessions and not may_be_none:
        raise SettingError(f"{path}: lists no session; add a row, or make a session folder with emflow init")
    names = [session.session for session in sessions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingError(f"{path}: session {twice[0]} stands in several rows; names must be unique")
    return sessions


def write_sessions(path: Path, sessions: Iterable[Session]) -> None:
    """Write sessions.tsv, with the columns that any of the sessions needs to say."""
    rows = [session.model_dump() for session in sessions]
    lines = ["\t".join(SESSION_COLUMNS)]
    lines += [
        "\t".join("" if row[column] is None else str(row[column]) for column in SESSION_COLUMNS)
        for row in rows
    ]
    write_text(path, "\n".join(lines) + "\n")


def config_text(config: Config | None = None) -> str:
    """Return config.yaml with every key, its value and its description: the file that init writes."""
    lines = [
        "# Settings of this run, a section per stage; README.md shows what a key is when left out.",
        "",
    ]
    _describe(config or Config(), lines, indent="")
    return "\n".join(lines).rstrip() + "\n"


def _describe(section: BaseModel, lines: list[str], indent: str) -> None:
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            summary = (type(value).__doc__ or "").strip()
            lines += ["", f"# {summary}", f"{key}:"]
            _describe(value, lines, indent + "  ")
        else:
            shown = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
            lines += [f"{indent}# {field.description}", f"{indent}{key}: {shown}"]


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of config.yaml, for editors and for `workflow/schemas/`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def sessions_schema() -> dict[str, Any]:
    """Return the JSON schema of a row of sessions.tsv."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Session.model_json_schema()}


SCHEMAS = types.MappingProxyType(
    {"config.schema.json": config_schema, "sessions.schema.json": sessions_schema}
)
