"""Every setting, its unit, its bounds and its default: the one truth behind config.yaml and sessions.tsv."""

from emflow.config.parsing import parse_config, parse_session, unfinished_session
from emflow.config.sections import Config, Tiles
from emflow.config.session import SESSION_COLUMNS, Session

__all__ = [
    "SESSION_COLUMNS",
    "Config",
    "Session",
    "Tiles",
    "parse_config",
    "parse_session",
    "unfinished_session",
]
