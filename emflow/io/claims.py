"""Which attempt at a table counts: the one that began last, as it says in a small file beside the table.

A run may be killed and its job live on. That job's tables, coordinates and pictures have fixed names, so it
must give way to the next run's. (Stores have names of their own: `emflow.io.attempts`.)
"""

import uuid
from pathlib import Path

from emflow.errors import SupersededError
from emflow.io.files import write_text


class Claim:
    """An attempt at an index; made before the work begins, and checked before anything is written.

    Parameters
    ----------
    index
        The table that the attempt will write, ``<stage>.tsv``.
    """

    def __init__(self, index: Path) -> None:
        self._index = index
        self._mark = index.with_name(f".{index.stem}.claim")
        self._own = uuid.uuid4().hex
        write_text(self._mark, self._own)

    def check(self) -> None:
        """Go on only while this is the attempt that counts.

        Raises
        ------
        SupersededError
            If a later one has begun, or has ended already.
        """
        try:
            ours = self._mark.read_text(encoding="utf-8") == self._own
        except FileNotFoundError:
            ours = False
        if not ours:
            raise SupersededError(f"a later attempt has taken {self._index}: this one is given up")

    def release(self) -> None:
        """Take the mark away: everything is written."""
        self._mark.unlink(missing_ok=True)
