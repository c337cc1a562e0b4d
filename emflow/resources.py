"""Where the pipeline's own files are: in a checkout its top level, in an installed wheel emflow/pipeline."""

from pathlib import Path

from emflow.errors import SettingError

PACKAGE = Path(__file__).resolve().parent


def pipeline_root() -> Path:
    """Return the folder that holds Snakefile, workflow/, profiles/ and config/."""
    installed = PACKAGE / "pipeline"
    return installed if installed.is_dir() else PACKAGE.parent


def snakefile() -> Path:
    """Return the pipeline's Snakefile; a session's own few lines include it."""
    return pipeline_root() / "Snakefile"


def model_folder(name_or_path: str) -> Path:
    """Return the folder of a model: a shipped one by its name, or any folder by its path.

    Raises
    ------
    SettingError
        If neither is there, naming the shipped ones.
    """
    shipped = PACKAGE / "models" / name_or_path
    folder = shipped if "/" not in name_or_path and shipped.is_dir() else Path(name_or_path)
    if not (folder / "card.json").is_file():
        known = sorted(path.parent.name for path in (PACKAGE / "models").glob("*/card.json"))
        shown = ", ".join(known) or "none"
        raise SettingError(f"model {name_or_path}: no folder with a card.json; shipped models are {shown}")
    return folder
