"""Simulated tomograms kept on disk: they cost more to make than a network learns from in one look."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emflow.io.files import replacing
from emflow.training.tomograms import TrainingTomogram, TrainingTomograms


@dataclass(frozen=True)
class KeptTomograms:
    """Gives the tomogram of a seed from a folder, and puts there what ``draw`` had to make.

    A folder serves several trainings: what another library or simulator made of a seed stays apart.
    """

    draw: TrainingTomograms
    folder: Path

    def __call__(self, seed: tuple[int, int]) -> TrainingTomogram:
        """Return one."""
        path = self.folder / f"{self.draw.digest}_{seed[0]}_{seed[1]}.npz"
        if path.is_file():
            with np.load(path) as kept:
                return TrainingTomogram(kept["even"], kept["odd"], kept["clean"], kept["labels"])
        made = self.draw(seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as stream:
            np.savez(stream, even=made.even, odd=made.odd, clean=made.clean, labels=made.labels)
        return made
