"""The picture of what a pick rests on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.figure
import matplotlib.patches

from emflow.io.files import replacing

if TYPE_CHECKING:
    from emflow.explanation import Explanation


def write_explanation(path: Path, explanation: Explanation, title: str, diameter_pixels: float) -> None:
    """Draw a pick's surroundings three times: plain, under occlusion, under Grad-CAM."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(title)
    strongest = max(float(abs(explanation.occlusion).max()), 1e-6)
    overlays = (
        (None, "as the network sees it", "", 0.0, 1.0),
        (explanation.occlusion, "occlusion", "loss of the logit when hidden", -strongest, strongest),
        (explanation.grad_cam, "Grad-CAM", "share of the highest", 0.0, 1.0),
    )
    y, x = explanation.centre_yx
    for axes, (overlay, name, unit, low, high) in zip(figure.subplots(1, 3), overlays, strict=True):
        axes.imshow(explanation.image, cmap="gray", vmin=-3, vmax=3)
        axes.add_patch(
            matplotlib.patches.Circle((x, y), diameter_pixels / 2, fill=False, color="tab:green", linewidth=1)
        )
        axes.set_title(name)
        axes.set_axis_off()
        if overlay is not None:
            colours = "RdBu_r" if low < 0 else "inferno"
            drawn = axes.imshow(overlay, cmap=colours, vmin=low, vmax=high, alpha=0.5)
            figure.colorbar(drawn, ax=axes, label=unit, shrink=0.8)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
