"""Make the stored images of one batch: Fourier-cropped, flattened, normalised, as a sharded OME-Zarr."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emflow.cli.image_batch import Geometry, ImageBatch, write_store_index
from emflow.cli.workers import THREADS, Workers
from emflow.errors import BadInputError
from emflow.fourier import resized_shape
from emflow.io.index import MicrographRow, accepted, read_index
from emflow.io.mrc import read_mrc
from emflow.preprocessing import flat_field


def build_tiles(
    *,
    micrographs: Path,
    output: Path,
    pixel_size_angstrom: float,
    outlier_sigmas: float,
    background_sigma_angstrom: float,
    threads: int = 1,
    dask: str = THREADS,
    memory_mb: int | None = None,
    stores: str | None = None,
) -> None:
    """Write the stored images of a batch and their table.

    Parameters
    ----------
    micrographs
        The batch's micrographs.tsv.
    output
        The tiles.tsv to write; the store lies beside it.
    pixel_size_angstrom
        Of the stored images; data that are coarser keep their own.
    outlier_sigmas
        Pixels further than this many robust standard deviations from the median are clamped.
    background_sigma_angstrom
        Standard deviation of the Gaussian background that is subtracted.
    threads
        Groups of micrographs worked on at once, at most.
    dask
        threads, processes, or slurm:N for N jobs of their own: see docs/cluster.md.
    memory_mb
        What processes share, or each of the jobs asks for; of threads no more work at once than it holds.
    stores
        Folder or URL (s3://...) below which the store lies, instead of beside its index.
    """
    workers = Workers(dask, threads, memory_mb)
    table = read_index(micrographs, MicrographRow)
    good = accepted(table)
    if not good:
        write_store_index(output, table, {})
        return
    geometry = _geometry(good[0], pixel_size_angstrom)
    sigma_pixels = background_sigma_angstrom / geometry.pixel_size_angstrom[0]

    def make(row: MicrographRow) -> NDArray[np.float32]:
        if (row.height, row.width) != geometry.unbinned_shape:
            raise BadInputError(f"{row.path} has another size than the rest of its batch; run emflow scan")
        try:
            image = read_mrc(Path(row.path))
        except BadInputError as error:
            raise BadInputError(f"{row.path} {error}") from None
        return flat_field(
            image, geometry.shape, outlier_sigmas=outlier_sigmas, background_sigma_pixels=sigma_pixels
        )

    ImageBatch("build_tiles", output, geometry, make, stores).write(table, workers, at_once=threads)


def _geometry(row: MicrographRow, stored_pixel_size_angstrom: float) -> Geometry:
    """Return the geometry of a batch from any of its micrographs: a batch is of one size."""
    if row.height is None or row.width is None or row.pixel_size_angstrom is None:
        raise ValueError(f"{row.name}: an accepted micrograph has a size")
    unbinned = (row.height, row.width)
    coarser = max(row.pixel_size_angstrom, stored_pixel_size_angstrom)
    return Geometry(
        shape=resized_shape(unbinned, row.pixel_size_angstrom, coarser),
        unbinned_shape=unbinned,
        unbinned_pixel_size_angstrom=row.pixel_size_angstrom,
    )
