"""The rules that keep compute apart from disk and from the workflow."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "emflow"
FORBIDDEN = ("snakemake", "mrcfile", "zarr", "starfile", "tifffile", "yaml", "emflow.io", "emflow.cli")
# Not arrays in, arrays out: the commands, the disk, and where the pipeline's own files are.
NOT_COMPUTE = ("cli", "io", "pipeline")


def compute_modules() -> list[Path]:
    paths = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in NOT_COMPUTE]
    return sorted(paths)


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", compute_modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_compute_does_not_touch_disk(path):
    wrong = [
        name for name in imported(path) if any(name == bad or name.startswith(f"{bad}.") for bad in FORBIDDEN)
    ]
    assert not wrong


def test_the_rule_can_fail(tmp_path):
    module = tmp_path / "bad.py"
    module.write_text("import numpy\nfrom emflow.io import store\n")
    assert "emflow.io.store" in imported(module)


@pytest.mark.parametrize("module", ["inference", "picking", "denoising", "networks"])
def test_inference_imports_torch_alone(module):
    """What training adds costs seconds to import, and every job would pay them."""
    names = imported(PACKAGE / f"{module}.py")
    assert not {name for name in names if name.split(".")[0] in ("captum", "gemmi", "lightning")}


def test_nothing_but_a_training_imports_lightning():
    """Not even what trainings share with evaluation: their modules and those of all commands."""
    import subprocess
    import sys

    loop = {"learner", "callbacks", "loop"}
    modules = [f"emflow.cli.{path.stem}" for path in (PACKAGE / "cli").glob("[a-z]*.py")]
    modules += [
        f"emflow.training.{path.stem}"
        for path in (PACKAGE / "training").glob("[a-z]*.py")
        if path.stem not in loop
    ]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not {"lightning", "pytorch_lightning", "torchmetrics"} & loaded


def test_the_snakefile_s_imports_are_light():
    """It is read in every job: no torch, no zarr."""
    import subprocess
    import sys

    code = "import sys, emflow.io.plan, emflow.io.model, emflow.revisions; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "zarr", "scipy", "pandas", "matplotlib"} & set(done.stdout.split())


def test_every_rule_is_a_command_with_its_name():
    import re

    root = PACKAGE.parent / "workflow" / "rules"
    rules = [
        name for path in root.glob("*.smk") for name in re.findall(r"^rule (\w+):", path.read_text(), re.M)
    ]
    assert rules
    for name in rules:
        assert (PACKAGE / "cli" / f"{name}.py").is_file()


def test_settings_files_are_what_the_models_say():
    import json

    from emflow.io.settings import SCHEMAS, config_text

    root = PACKAGE.parent
    assert (root / "config/config.yaml").read_text() == config_text(), (
        "write config_text() to config/config.yaml"
    )
    for name, make in SCHEMAS.items():
        stored = json.loads((root / "workflow/schemas" / name).read_text())
        assert stored == make(), "run: emflow schema --output workflow/schemas"
