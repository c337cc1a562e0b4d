"""What every test shares: outside data, few threads, and no test skipped unseen in automatic checks."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Read by numpy's and torch's libraries when they load, here and in every process that a test starts:
# a test machine has two cores, and results must not hang on how many there are.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "2")

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
NO_OUTSIDE_DATA = "no outside data"

# Slow machines are no failures, and automatic checks try the same examples every time.
settings.register_profile("emflow", deadline=None, derandomize=IN_CI)
settings.load_profile("emflow")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of outside data (real micrographs, maps): EMFLOW_SHARED, else ``shared`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("EMFLOW_SHARED", beside))
    if not (folder / "data").is_dir():
        pytest.skip(f"{NO_OUTSIDE_DATA}: {folder}/data is not there (set EMFLOW_SHARED)")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI set, a RELION or SLURM test that would be skipped fails: there the programs must be installed.

    Outside data is no program: a clean clone has none.
    """
    report = yield
    needs_program = any(item.get_closest_marker(name) for name in ("relion", "slurm"))
    if IN_CI and report.skipped and needs_program and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if NO_OUTSIDE_DATA not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped where it must run (CI is set): {reason}"
    return report
