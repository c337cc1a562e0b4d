"""Which files of a running microscope are ready: whole, and enough for a batch or waiting for long enough."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass
class ReadyFiles(Generic[Key]):
    """Follows files from look to look.

    What counts is how long a file was seen unchanged here, never its time stamp: the clock of the machine
    that writes it may differ, and a copy may bring the time of the original.

    Parameters
    ----------
    settle_seconds
        A file that was seen unchanged for so long is whole.
    batch_size
        So many whole files make a batch.
    batch_age_seconds
        A whole file waits no longer than this for others to fill its batch.
    """

    settle_seconds: float
    batch_size: int
    batch_age_seconds: float
    _seen: dict[Key, tuple[object, float]] = field(default_factory=dict)

    def look(self, files: Mapping[Key, object], now: float) -> list[Key]:
        """Take note of the files that are not listed yet and return those to list now, the oldest first.

        Parameters
        ----------
        files
            What identifies each file as it is now (its size and time stamp, say).
        now
            In seconds, of a clock that never goes back.
        """
        self._seen = {
            key: self._seen[key] if key in self._seen and self._seen[key][0] == identity else (identity, now)
            for key, identity in files.items()
        }
        whole = [key for key, (_, since) in self._seen.items() if now - since >= self.settle_seconds]
        whole.sort(key=lambda key: self._seen[key][1])
        if whole and now - self._seen[whole[0]][1] >= self.settle_seconds + self.batch_age_seconds:
            return whole
        return whole[: len(whole) // self.batch_size * self.batch_size]
