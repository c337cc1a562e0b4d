"""What the commands that work on a tomogram share: its row, its channels, and how they are standardised."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError, SettingError
from emflow.io.index import FAILED, VolumeRow, read_index
from emflow.io.locations import Location, find_store
from emflow.io.volumes import channel_names, open_volume
from emflow.model_card import PIXEL_SIZE_TOLERANCE

# Stored images have whole, even sides: their pixels are off from the size that was asked for by this share.
_ROUNDING = 0.01


def read_volume_row(path: Path) -> VolumeRow:
    """Return the row of a tomogram's table."""
    (row,) = read_index(path, VolumeRow)
    return row


def failed_reason(row: VolumeRow) -> str | None:
    """Return why a tomogram was left out, or None when it was not."""
    return row.reason if row.status == FAILED else None


@dataclass(frozen=True)
class StoredTomogram:
    """A tomogram in its store, read in pieces."""

    row: VolumeRow
    store: Location
    channels: tuple[str, ...]

    @classmethod
    def open(cls, row: VolumeRow, folder: Path) -> "StoredTomogram":
        """Open the store that a row in a table of ``folder`` names."""
        store = find_store(folder, row.store)
        return cls(row, store, tuple(channel_names(store)))

    def numbers(self, key: str, names: Sequence[str]) -> list[int]:
        """Return the numbers of some of a segmentation's classes, which a setting names.

        Raises
        ------
        SettingError
            If it has no such class.
        """
        for name in names:
            if name not in self.channels:
                raise SettingError(
                    f"{key}: {name} is no class of the segmentation; it has {', '.join(self.channels)}"
                )
        return [self.channels.index(name) for name in names]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) in voxels."""
        return self.row.depth or 0, self.row.height or 0, self.row.width or 0

    def read(self, channel: str, first: int, last: int) -> NDArray[np.float32]:
        """Read the slices (n, y, x) of a channel from ``first`` to before ``last``."""
        return self.read_part(channel, (slice(first, last), slice(None), slice(None)))

    def read_part(self, channel: str, part: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        """Read a part (z, y, x) of a channel; no more of the store than the chunks that it lies in."""
        array = open_volume(self.store)
        return np.asarray(array[(self.channels.index(channel), *part)], dtype=np.float32)

    def standardisation(self, channel: str) -> tuple[float, float]:
        """Return centre and spread of a channel, see `emflow.segmentation.measured_standardisation`."""
        from emflow.segmentation import measured_standardisation

        return measured_standardisation(partial(self.read, channel), self.shape[0])


def check_pixel_size(row: VolumeRow, wanted_angstrom: float | None) -> None:
    """Refuse a tomogram whose voxels are far from those a network was trained on.

    Raises
    ------
    BadInputError
        If they are.
    """
    pixel = row.pixel_size_angstrom or 0.0
    if not wanted_angstrom or abs(pixel / wanted_angstrom - 1) <= PIXEL_SIZE_TOLERANCE + _ROUNDING:
        return
    own = row.unbinned_pixel_size_angstrom
    binned_here = own is not None and own <= (1 + PIXEL_SIZE_TOLERANCE) * wanted_angstrom
    advice = "set tomogram.pixel_size_angstrom" if binned_here else "give data at that scale"
    raise BadInputError(
        f"has voxels of {pixel:.4g} A, and the model works at {wanted_angstrom:g} A; {advice}, or train a "
        "model at this one"
    )
