"""Pictures of how a training went and how far a picker's scores can be believed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.figure
import numpy as np

from emflow.io.files import replacing

CURVES = "curves.png"
RELIABILITY = "reliability.png"


def write_curves(folder: Path, curve: Sequence[tuple[int, float, float, float]]) -> None:
    """Draw ``curves.png``: the loss of each reported stretch, that of what was kept apart, and the rate."""
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    losses = figure.subplots()
    if curve:
        step, mean, rate, apart = np.array(curve, dtype=np.float64).T
        losses.plot(step, mean, marker=".", label="learned from")
        losses.plot(step, apart, marker=".", label="kept apart")
        finite = np.concatenate([mean, apart])[np.isfinite(np.concatenate([mean, apart]))]
        losses.set_ylim(0, 1.25 * finite.max() if len(finite) else None)  # room for the legend
        losses.legend(loc="upper right")
        rates = losses.twinx()
        rates.plot(step, rate, color="0.7", linestyle=":", zorder=0)
        rates.set_ylim(bottom=0)
        rates.set_ylabel("learning rate (dotted)")
    losses.set_xlabel("step")
    losses.set_ylabel("loss")
    with replacing(folder / CURVES) as partial:
        figure.savefig(partial, dpi=100)


def write_reliability(folder: Path, table: Sequence[Mapping[str, float]], threshold: float | None) -> None:
    """Draw ``reliability.png``: of candidates of each figure of merit, the share that were particles.

    Parameters
    ----------
    folder
        Where.
    table
        Rows of `emflow.scoring.reliability`.
    threshold
        The picker's own, drawn as a line; None for none.
    """
    figure = matplotlib.figure.Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as it should be")
    merit = [row["mean_figure_of_merit"] for row in table]
    share = [row["share_right"] for row in table]
    axes.plot(merit, share, marker="o", label="as it is")
    for row in table:
        axes.annotate(
            f"{row['picks']:.0f}",
            (row["mean_figure_of_merit"], row["share_right"]),
            xytext=(4, -9),
            textcoords="offset points",
            fontsize=7,
        )
    if threshold is not None:
        axes.axvline(threshold, color="tab:red", linewidth=1, linestyle="--", label="threshold")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="figure of merit", ylabel="share that were particles")
    axes.set_aspect("equal")
    axes.legend(loc="upper left")
    with replacing(folder / RELIABILITY) as partial:
        figure.savefig(partial, dpi=100)
