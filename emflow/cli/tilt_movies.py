"""The movies of a tilt series: aligned frame by frame, as those of single particles are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emflow.cli.movie_batch import MovieBatch, MovieSettings
from emflow.cli.series import required
from emflow.errors import BadInputError, SettingError
from emflow.io.gains import read_gain
from emflow.io.gpus import take_device
from emflow.io.index import TiltRow
from emflow.io.inputs import InputRow
from emflow.io.movies import is_eer, read_movie_header
from emflow.metadata import OpticsGroup

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TiltMovies:
    """Corrects movies of tilts into ``folder``/micrographs, with the sums of even and of odd frames.

    RELION weighs tilts by exposure itself: the sums are not weighted.
    """

    folder: Path
    halves_pixel_size_angstrom: float
    header_pixel_size_angstrom: float | None
    gain_path: Path | None
    gain: NDArray[np.float32] | None
    gain_rotation: int
    gain_flip: str
    defects: Path | None
    device: "torch.device"

    @classmethod
    def open(
        cls,
        folder: Path,
        halves_pixel_size_angstrom: float,
        header_pixel_size_angstrom: float | None,
        gain: Path | None,
        gain_rotation: int,
        gain_flip: str,
        defects: Path | None,
        device: str,
        threads: int,
    ) -> "TiltMovies":
        """Read the gain reference, and get ready.

        Raises
        ------
        SettingError
            If the gain reference cannot be used.
        """
        import torch

        torch.set_num_threads(threads)
        image = None
        if gain is not None:
            try:
                image = read_gain(gain, rotate_quarter_turns=gain_rotation, flip=gain_flip)
            except BadInputError as error:
                raise SettingError(f"gain: {gain} {error}") from None
        return cls(
            folder,
            halves_pixel_size_angstrom,
            header_pixel_size_angstrom,
            gain,
            image,
            gain_rotation,
            gain_flip,
            defects,
            take_device(device),
        )

    def correct(self, row: TiltRow) -> TiltRow:
        """Correct the movie of a tilt; return the row with its image.

        Raises
        ------
        BadInputError
            If the movie cannot be used.
        """
        path = Path(row.path)
        exposure = row.exposure_electrons_per_square_angstrom or 3.0
        frames = 10 if is_eer(path) else read_movie_header(path).frames
        settings = MovieSettings(
            optics=OpticsGroup(
                "tilts",
                required(row, "pixel_size_angstrom"),
                required(row, "voltage_kilovolt"),
                required(row, "spherical_aberration_millimetre"),
                required(row, "amplitude_contrast"),
            ),
            header_pixel_size_angstrom=self.header_pixel_size_angstrom
            or required(row, "pixel_size_angstrom"),
            exposure=exposure / max(1, frames),
            total_exposure=exposure,
            gain=self.gain_path,
            gain_rotation=self.gain_rotation,
            gain_flip=self.gain_flip,
            defects=self.defects,
            local=False,
            dose_weighting=False,
            power_spectrum=False,
            halves_pixel_size_angstrom=self.halves_pixel_size_angstrom,
        )
        work = MovieBatch(self.folder, settings, self.gain, self.device)
        micrograph, _ = work.correct(InputRow("", "", row.name, row.path, 0, 0, 0, 0))
        return replace(
            row,
            image_path=micrograph.path,
            pixel_size_angstrom=micrograph.pixel_size_angstrom,
        )
