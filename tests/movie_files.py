"""Movies for tests, written in every format that is read."""

from collections.abc import Sequence
from pathlib import Path

import mrcfile
import numpy as np
import tifffile
from numpy.typing import NDArray

_EER_METADATA = b"<metadata></metadata>"


def write_mrcs(
    path: Path, frames: NDArray[np.generic], *, packed: bool = False, pixel_size_angstrom: float | None = None
) -> None:
    """Write a stack (n, h, w) in its type's mode, or as four bits a pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = frames.shape
    data = frames[:, :, : width // 2].astype(np.int8) if packed else frames
    with mrcfile.new(path, data=data, overwrite=True) as mrc:
        mrc.set_image_stack()
        if pixel_size_angstrom is not None:
            mrc.voxel_size = pixel_size_angstrom
    if packed:
        raw = bytearray(path.read_bytes())
        raw[:16] = np.array([width, height, count, 101], "<i4").tobytes()
        low, high = frames[..., ::2].astype(np.uint8), frames[..., 1::2].astype(np.uint8)
        raw[1024:] = (low | high << 4).tobytes()
        path.write_bytes(raw)


def write_tiff(path: Path, frames: NDArray[np.generic], compression: str | None = None) -> None:
    """Write a page per frame, rows as given: RELION, and so emflow, reads them upside down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, frames, compression=compression, photometric="minisblack")


def write_eer(path: Path, events: Sequence[NDArray[np.int64]], camera: tuple[int, int]) -> None:
    """Write a frame of electron events per item: (n, 2) places (y, x) in half pixels of the camera (h, w)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for places in events:
            data = _encode_events(places, camera)
            # Nothing but a camera writes EER: the page is written as another compression's, and renamed.
            tiff.write(
                iter([data]),
                shape=camera,
                dtype=np.uint8,
                compression="deflate",
                rowsperstrip=camera[0],
                extratags=[(65001, 7, len(_EER_METADATA), _EER_METADATA, True)],
                metadata=None,
            )
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page in tiff.pages:
            page.tags["Compression"].overwrite(65001)


def _encode_events(places: NDArray[np.int64], camera: tuple[int, int]) -> bytes:
    """Encode events as EER does: 7 bits of pixels to skip, then 4 of the place inside, low bits first."""
    pixel = places[:, 0] // 2 * camera[1] + places[:, 1] // 2
    # Quarters of a pixel, of which the half is the upper bit; the camera writes them with these bits turned.
    quarter = (places[:, 0] % 2 * 8 + places[:, 1] % 2 * 2) ^ 0b1010
    bits, nbits, at = 0, 0, 0
    for place, inside in [
        *sorted(zip(pixel.tolist(), quarter.tolist(), strict=True)),
        (camera[0] * camera[1], 0),
    ]:
        skip = place - at
        for code in [127] * (skip // 127) + [skip % 127]:
            bits |= code << nbits
            nbits += 7
        bits |= inside << nbits
        nbits += 4
        at = place + 1
    return bits.to_bytes(2 * (nbits // 16 + 1), "little")  # cameras write words of 16 bits
