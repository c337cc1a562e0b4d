"""Movies in TIFF files, a page a frame: read upside down, as RELION does."""

import logging
import struct
from pathlib import Path
from types import TracebackType

import numpy as np
import tifffile
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.io.files import replacing

# What it complains of is an error here, and said once.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


class TiffPages:
    """Pages of a TIFF file, checked to be all there; decoded one by one."""

    def __init__(self, path: Path, **options: int) -> None:
        try:
            self._file = tifffile.TiffFile(path, **options)
        except (tifffile.TiffFileError, OSError, ValueError) as error:
            raise BadInputError(f"is no readable TIFF file: {error}") from None
        try:
            self.pages = list(self._file.pages)
            check_chain(self._file)
            size = path.stat().st_size
            for number, page in enumerate(self.pages):
                end = max(
                    (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0
                )
                if end > size:
                    raise BadInputError(
                        f"is truncated: {size} bytes, and page {number + 1} of {len(self.pages)} reaches to "
                        f"{end}"
                    )
        except BadInputError:
            self.close()
            raise
        except Exception as error:  # a broken directory raises what it likes
            self.close()
            raise BadInputError(f"is truncated or damaged: {error}") from None

    def decode(self, number: int) -> NDArray[np.generic]:
        """Return a page's image, rows as in the file."""
        try:
            image: NDArray[np.generic] = self.pages[number].asarray()
        except Exception as error:  # decoders raise what they like
            raise BadInputError(f"page {number + 1} cannot be decoded: {error}") from None
        return image

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "TiffPages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TiffMovie:
    """An open TIFF stack."""

    def __init__(self, path: Path) -> None:
        self._pages = TiffPages(path)
        shapes = {page.shape for page in self._pages.pages}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
            self.close()
            raise BadInputError("is no movie: its pages differ in size or hold colours")
        self.frames, self.shape = len(self._pages.pages), (int(shape[0]), int(shape[1]))
        # TIFF states none that could be relied on
        self.pixel_size_angstrom: float | None = None

    def read(self, frame: int) -> NDArray[np.generic]:
        """Return a frame (h, w), turned upside down."""
        return self._pages.decode(frame)[::-1]

    def close(self) -> None:
        """Close the file."""
        self._pages.close()


def check_chain(file: tifffile.TiffFile) -> None:
    """Make sure that the last page found is the last there was: the library itself ends at a cut.

    Raises
    ------
    BadInputError
        If its directory leads on to another, which is not there.
    """
    count = len(file.pages)
    stream, layout = file.filehandle, file.tiff
    start = file.pages[count - 1].offset
    stream.seek(start)
    (tags,) = struct.unpack(layout.tagnoformat, stream.read(layout.tagnosize))
    stream.seek(start + layout.tagnosize + tags * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, stream.read(layout.offsetsize))
    if following:
        raise BadInputError(f"is truncated after page {count}: the next should begin at byte {following}")


def read_tiff_layout(path: Path) -> tuple[int, int, int]:
    """Return how many pages a TIFF or EER file has, and height and width of the last, without decoding any.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    try:
        with tifffile.TiffFile(path) as file:
            count = len(file.pages)
            shape = file.pages[count - 1].shape
            check_chain(file)
    except BadInputError:
        raise
    except Exception as error:  # a broken directory raises what it likes
        raise BadInputError(f"is no readable TIFF file: {error}") from None
    if len(shape) < 2:
        raise BadInputError(f"is no movie: its pages have the shape {shape}")
    return count, int(shape[-2]), int(shape[-1])


def write_tiff_movie(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames (n, h, w), rows as RELION sees them, as a movie packed by LZW; whole or not at all."""
    with replacing(path) as partial, tifffile.TiffWriter(partial) as tiff:
        for frame in frames:
            tiff.write(
                np.ascontiguousarray(frame[::-1]), compression="lzw", photometric="minisblack", metadata=None
            )
