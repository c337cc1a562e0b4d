"""Import one ready tomogram, or its halves: into a store, at the pixel size of tomograms if it is finer."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.cli.import_tilt_series import check_unchanged_unit
from emflow.cli.input_batch import check_stated_pixel_size, read_planned
from emflow.cli.progress import say
from emflow.cli.volume_stage import Slab, write_failed_volume, write_volume
from emflow.errors import BadInputError
from emflow.fourier import even_side
from emflow.io.index import OK, VolumeRow, write_failures
from emflow.io.tilt_series.listing import Unit, tomogram_unit
from emflow.io.tomograms import Tomogram, open_tomogram, stored_pixel_size_angstrom
from emflow.io.volumes import SLAB_SLICES
from emflow.resampling import Resampling

STAGE = "import_tomogram"
_STATISTICS_SLICES = 16


def import_tomogram(
    *,
    inputs: Path,
    session: str,
    tilt_series: str,
    digest: str,
    output: Path,
    pixel_size_angstrom: float,
    header_pixel_size_angstrom: float | None = None,
    wanted_pixel_size_angstrom: float = 10.0,
    even_tomograms: str | None = None,
    odd_tomograms: str | None = None,
    protein_bright: bool = False,
    stores: str | None = None,
) -> None:
    """Write a tomogram's store and its table, slab by slab.

    Parameters
    ----------
    inputs
        The session folder's inputs.tsv.
    session, tilt_series
        Which row of it.
    digest
        What that row was when the job was planned; another digest is refused.
    output
        The tomogram.tsv to write; the store lies beside it.
    pixel_size_angstrom
        Side of the file's voxels.
    header_pixel_size_angstrom
        What the headers say in its place, where they are wrong: strays are found by it.
    wanted_pixel_size_angstrom
        A finer tomogram is averaged to voxels of this side; a coarser one stays as it is.
    even_tomograms, odd_tomograms
        Globs of the halves; found by their names when not given.
    protein_bright
        Whether the files show protein bright: the store has it dark, as all tomograms here.
    stores
        Folder or URL (s3://...) below which the store lies, instead of beside its index.
    """
    row = read_planned(inputs, session, tilt_series, digest)
    path = Path(row.path)
    unit = tomogram_unit(path, tilt_series, even_tomograms, odd_tomograms)
    try:
        check_unchanged_unit(row, unit, None)
        with ExitStack() as stack:
            source = _Source.open(unit, stack, pixel_size_angstrom)
            source.check_headers(header_pixel_size_angstrom)
            volume = _row(tilt_series, source, wanted_pixel_size_angstrom)
            slabs = source.slabs(volume, sign=-1 if protein_bright else 1)
            say(STAGE, f"{tilt_series}: {volume.width} x {volume.height} x {volume.depth} voxels")
            write_volume(STAGE, output, volume, slabs, channels=source.channels, stores=stores)
    except BadInputError as error:
        reason = f"{path} {error}"
        write_failed_volume(STAGE, output, tilt_series, reason)
        write_failures(output.parent, [VolumeRow(tilt_series, "failed", reason)])


@dataclass(frozen=True)
class _Source:
    """The open files of a tomogram; without a whole one, the mean of its halves stands for it."""

    files: dict[str, Tomogram]
    pixel_size_angstrom: float

    @classmethod
    def open(cls, unit: Unit, stack: ExitStack, pixel_size_angstrom: float) -> "_Source":
        paths = {"full": unit.path, "even": unit.even, "odd": unit.odd}
        if unit.even == unit.path:
            del paths["full"]
        files = {name: stack.enter_context(open_tomogram(path)) for name, path in paths.items() if path}
        shapes = {name: one.header.shape for name, one in files.items()}
        if len(set(shapes.values())) > 1:
            sizes = ", ".join(f"{name} {' x '.join(map(str, shape[::-1]))}" for name, shape in shapes.items())
            raise BadInputError(f"and its halves differ in size: {sizes}")
        return cls(files, pixel_size_angstrom)

    def check_headers(self, header_pixel_size_angstrom: float | None) -> None:
        """Refuse files of another pixel size than the session's."""
        for name, file in self.files.items():
            check_stated_pixel_size(
                file.header.pixel_size_angstrom,
                self.pixel_size_angstrom,
                header_pixel_size_angstrom,
                where="in its header" if name == "full" else f"in the header of its {name} half",
            )

    @property
    def channels(self) -> list[str]:
        """What is stored."""
        return ["full", *(name for name in ("even", "odd") if name in self.files)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the files."""
        return next(iter(self.files.values())).header.shape

    def read(self, channel: str, first: int, last: int) -> NDArray[np.float32]:
        """Read slices of a channel."""
        if channel in self.files:
            slices = self.files[channel].read(first, last - first)
        else:
            slices = 0.5 * (self.read("even", first, last) + self.read("odd", first, last))
        if not np.isfinite(slices).all():
            raise BadInputError(f"has voxels that are NaN or infinite in slices {first} to {last}")
        return np.asarray(slices, dtype=np.float32)

    def standards(self) -> tuple[float, float]:
        """Return mean and spread of the whole tomogram, from some of its slices."""
        depth = self.shape[0]
        chosen = np.unique(np.linspace(0, depth - 1, min(depth, _STATISTICS_SLICES)).round().astype(int))
        slices = np.stack([self.read("full", int(n), int(n) + 1)[0] for n in chosen]).astype(np.float64)
        spread = float(slices.std())
        if not spread > 0:
            raise BadInputError(f"is constant: its voxels are {float(slices.flat[0]):g}")
        return float(slices.mean()), spread

    def slabs(self, volume: VolumeRow, *, sign: int) -> Iterator[Slab]:
        """Yield slabs in units of the tomogram's spread, about a mean of 0: 16 bits hold it well then.

        A ``sign`` of -1 turns bright into dark.
        """
        mean, spread = self.standards()
        shape = (volume.depth or 0, volume.height or 0, volume.width or 0)
        work = Resampling(self.shape, shape, (volume.pixel_size_angstrom or 1.0) / self.pixel_size_angstrom)
        for first in range(0, shape[0], SLAB_SLICES):
            last = min(first + SLAB_SLICES, shape[0])
            slab = [work.slab(partial(self.read, name), first, last) for name in self.channels]
            yield first, (np.stack(slab) - np.float32(mean)) / np.float32(sign * spread), None


def _row(name: str, source: _Source, wanted_angstrom: float) -> VolumeRow:
    pixel = source.pixel_size_angstrom
    depth, height, width = source.shape
    shape, size = source.shape, stored_pixel_size_angstrom(pixel, wanted_angstrom)
    if size != pixel:
        shape = (
            even_side(depth * pixel / size),
            even_side(height * pixel / size),
            even_side(width * pixel / size),
        )
    return VolumeRow(
        name,
        OK,
        depth=shape[0],
        height=shape[1],
        width=shape[2],
        pixel_size_angstrom=size,
        unbinned_depth=depth,
        unbinned_height=height,
        unbinned_width=width,
        unbinned_pixel_size_angstrom=pixel,
        halves="given" if "even" in source.files else "",
    )
