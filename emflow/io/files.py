"""Files that appear whole: written beside their place, then renamed into it."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; on success it is renamed to ``path``, else removed.

    Two writers of one path each have a file of their own, so a reader sees the one or the other, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: some writers choose their format by it.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.{os.urandom(4).hex()}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_text_if_changed(path: Path, text: str) -> bool:
    """Write ``text`` unless ``path`` holds it already; return whether it was written."""
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    write_text(path, text)
    return True


def link(path: Path, target: Path) -> None:
    """Make ``path`` a link to a file, by rename; one that leads there already is left alone."""
    # The link is absolute: the folder may be reached by several paths, the data by one.
    wanted = os.path.abspath(target)  # noqa: PTH100 - resolving would follow the facility's own links
    if path.is_symlink() and os.readlink(path) == wanted:  # noqa: PTH115 - compares text
        return
    with replacing(path) as partial:
        partial.symlink_to(wanted)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
