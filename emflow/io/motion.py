"""motion.jsonl: how each movie of a batch moved, a line a movie; beside it stands its micrographs.tsv."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emflow.errors import SettingError
from emflow.io.files import replacing

if TYPE_CHECKING:
    from emflow.motion.field import MotionField

MOTION = "motion.jsonl"


@dataclass(frozen=True)
class MotionRecord:
    """How a movie moved, and what it was corrected with; ``path`` and the like are the movie's own files.

    ``coefficients`` are those of `emflow.motion.MotionField`; pixel size, shifts and bad pixels are of the
    frames as read (of EER, after upsampling). Exposures are in electrons per square angstrom.
    """

    name: str
    path: str
    frames: int
    height: int
    width: int
    degree: int
    coefficients: list[list[list[float]]]
    pixel_size_angstrom: float
    voltage_kilovolt: float
    exposure: float
    pre_exposure: float
    binning: float
    first_frame: int = 1
    gain: str = ""
    gain_rotation: int = 0
    gain_flip: str = "none"
    defects: str = ""
    eer_grouping: int | None = None
    eer_upsampling: int | None = None
    bad_pixels_yx: tuple[tuple[int, int], ...] = ()
    unweighted: str = ""  # the unweighted sum's path
    power_spectrum: str = ""  # the path of the spectrum for CTF fits

    def field(self) -> "MotionField":
        """Return the motion field of the frames that were used."""
        import numpy as np

        from emflow.motion.field import MotionField

        return MotionField((self.height, self.width), self.degree, np.array(self.coefficients))


def write_motion(path: Path, records: Iterable[MotionRecord]) -> None:
    """Write a batch's records, whole or not at all."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(asdict(record)) + "\n" for record in records)


def read_motion(path: Path) -> dict[str, MotionRecord]:
    """Read a batch's records, by the name of the movie.

    Raises
    ------
    SettingError
        If the file is absent or damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [MotionRecord(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise SettingError(f"{path}: cannot be read ({error}); run the batch again") from None
    return {record.name: record for record in records}
