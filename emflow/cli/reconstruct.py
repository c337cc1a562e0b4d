"""Reconstruct the tomogram of a tilt series, whole and from halves of the data, slab by slab."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.cli.series import geometry_of, read_tilts, reason_of, required, series_name
from emflow.cli.volume_stage import Slab, made_ahead, write_failed_volume, write_volume
from emflow.cli.workers import THREADS, Workers
from emflow.errors import BadInputError
from emflow.fourier import even_side
from emflow.io.gpus import take_device
from emflow.io.index import OK, TiltRow, VolumeRow
from emflow.io.locations import find_store
from emflow.io.mrc_volumes import mrc_volume
from emflow.io.store import read_in_turn
from emflow.io.volumes import SLAB_SLICES
from emflow.metadata import OpticsGroup

if TYPE_CHECKING:
    import torch

    from emflow.tilt_geometry import TiltGeometry

STAGE = "reconstruct"
CHANNELS = ("full", "even", "odd")
# Tasks of one worker that begin together prepare the images once.
_preparing = threading.Lock()


def reconstruct(
    *,
    tilts: Path,
    output: Path,
    thickness_angstrom: float = 2000.0,
    filter: Literal["ramp", "sirt"] = "ramp",
    sirt_rounds: int = 10,
    ctf: Literal["none", "phase_flip", "deconvolve"] = "none",
    mrc: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
    dask: str = THREADS,
    memory_mb: int | None = None,
    stores: str | None = None,
) -> None:
    """Write a tilt series' tomogram and its table.

    Parameters
    ----------
    tilts
        The series' alignment.tsv or tilt_ctf.tsv.
    output
        The tomogram.tsv to write; the store lies beside it.
    thickness_angstrom
        Depth of the tomogram.
    filter
        ramp, or sirt for a ramp as sirt_rounds of SIRT leave it.
    sirt_rounds
        Fewer are smoother.
    ctf
        What to do about the contrast transfer function.
    mrc
        Whether to write the whole tomogram as MRC too, beside its table.
    device
        auto, cpu or cuda; processes and jobs work on their CPUs whatever it says.
    threads
        Of the CPU, or processes.
    dask
        threads, processes, or slurm:N for N jobs that share the slabs: see docs/cluster.md.
    memory_mb
        What processes share, or each of the jobs asks for.
    stores
        Folder or URL (s3://...) below which the store lies, instead of beside its index.
    """
    import torch

    workers = Workers(dask, threads, memory_mb)
    torch.set_num_threads(threads)
    table, rows = read_tilts(tilts)
    name = series_name(tilts)
    if not rows:
        write_failed_volume(STAGE, output, name, reason_of(table))
        return
    here = dask == THREADS
    chosen = take_device(device) if here else torch.device("cpu")
    rounds = sirt_rounds if filter == "sirt" else None
    try:
        depth = even_side(thickness_angstrom / required(rows[0], "stored_pixel_size_angstrom"))
        work = _Work(rows, tilts.parent, ctf, rounds, depth, chosen)
        row = _volume_row(name, rows, depth, work)
    except BadInputError as error:
        write_failed_volume(STAGE, output, name, str(error))
        return
    shape = (row.depth or 0, row.height or 0, row.width or 0)
    where = chosen if here else f"the CPUs of {dask}"
    say(STAGE, f"{name}: {len(rows)} images into {shape[2]} x {shape[1]} x {shape[0]} voxels on {where}")

    def slabs_from(starts: Iterable[int]) -> Generator[NDArray[np.float32], None, None]:
        if here:
            yield from (work.slab(shape, first) for first in starts)
            return
        # Workers read the images themselves: sent with each task, they would be most of the traffic.
        task = partial(_slab_of, tilts.absolute(), ctf, rounds, workers.threads_of_task(1), shape)
        yield from workers.in_order(task, starts, at_once=1)

    target = output.parent / f"{name}.mrc"
    copy = mrc_volume(target, shape, row.pixel_size_angstrom or 0.0) if mrc else nullcontext(None)
    if not mrc:
        target.unlink(missing_ok=True)
    with copy as array:
        write_volume(
            STAGE,
            output,
            row,
            _copied(made_ahead(work.slabs(shape, slabs_from), chosen), array),
            channels=CHANNELS,
            stores=stores,
        )


def _copied(slabs: Iterator[Slab], array: NDArray[np.float32] | None) -> Iterator[Slab]:
    for first, slab, labels in slabs:
        if array is not None:
            array[first : first + slab.shape[1]] = slab[0]
        yield first, slab, labels


class _Work:
    """The filtered images of a series and of its halves, ready to be back-projected."""

    def __init__(
        self,
        rows: list[TiltRow],
        folder: Path,
        ctf: str,
        sirt_rounds: int | None,
        depth: int,
        device: "torch.device",
    ) -> None:
        import torch

        from emflow.reconstruction import ramp_filter

        self.geometry = geometry_of(rows)
        self.pixel_size_angstrom = required(rows[0], "stored_pixel_size_angstrom")
        self.has_frames = all(row.even_position is not None for row in rows)

        def images(position: str) -> torch.Tensor:
            read = [_image(row, folder, position, ctf, self.pixel_size_angstrom) for row in rows]
            return torch.from_numpy(np.stack(read)).to(device)

        weighted = partial(ramp_filter, depth_voxels=depth, sirt_rounds=sirt_rounds)
        # Halves of frames where movies were given, with the same tilts; else every other tilt.
        self._parts: list[tuple[torch.Tensor, TiltGeometry]] = []
        if self.has_frames:
            sides = [int(required(rows[0], key)) for key in ("stored_height", "stored_width")]
            filtered = torch.empty((len(CHANNELS), len(rows), *sides), device=device)
            for part, position in enumerate(("position", "even_position", "odd_position")):
                filtered[part] = weighted(images(position), self.geometry)
            self._parts.append((filtered, self.geometry))
        else:
            whole = images("position")
            for chosen in (slice(None), slice(0, None, 2), slice(1, None, 2)):
                geometry = self.geometry.select(chosen)
                filtered = weighted(whole[chosen], geometry)
                self._parts.append((filtered[None], geometry))

    def slab(self, shape: tuple[int, int, int], first: int) -> NDArray[np.float32]:
        """Return the channels of a slab, shape (3, slices, y, x)."""
        from emflow.reconstruction import reconstruct_slab

        slices = min(SLAB_SLICES, shape[0] - first)
        return np.concatenate(
            [
                reconstruct_slab(images, geometry, self.pixel_size_angstrom, shape, first, slices)
                .cpu()
                .numpy()
                for images, geometry in self._parts
            ]
        )

    def slabs(
        self,
        shape: tuple[int, int, int],
        slabs_from: Callable[[Iterable[int]], Generator[NDArray[np.float32], None, None]],
    ) -> Iterator[Slab]:
        """Yield the slabs, scaled so that the tomogram's middle has spread 1: 16 bits hold it well then.

        ``slabs_from`` yields what `slab` returns of each first slice; the middle one is made here.
        """
        middle = shape[0] // 2 // SLAB_SLICES * SLAB_SLICES
        kept = self.slab(shape, middle)
        scale = np.float32(1 / max(float(kept[0].std()), 1e-12))
        starts = range(0, shape[0], SLAB_SLICES)
        with closing(slabs_from([first for first in starts if first != middle])) as others:
            for first in starts:
                yield first, (kept if first == middle else next(others)) * scale, None


@lru_cache(maxsize=1)
def _prepared(tilts: Path, ctf: str, sirt_rounds: int | None, depth: int) -> _Work:
    import torch

    return _Work(read_tilts(tilts)[1], tilts.parent, ctf, sirt_rounds, depth, torch.device("cpu"))


def _slab_of(
    tilts: Path, ctf: str, sirt_rounds: int | None, threads: int, shape: tuple[int, int, int], first: int
) -> NDArray[np.float32]:
    """Return a slab as `_Work.slab` does, in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    with _preparing:
        work = _prepared(tilts, ctf, sirt_rounds, shape[0])
    return work.slab(shape, first)


def _image(
    row: TiltRow, folder: Path, position: str, ctf: str, pixel_size_angstrom: float
) -> NDArray[np.float32]:
    image = read_in_turn(find_store(folder, row.store), int(required(row, position)))
    if ctf == "none":
        return image
    from emflow.tilt_ctf import deconvolve, flip_phases

    optics = OpticsGroup(
        row.name,
        required(row, "pixel_size_angstrom"),
        required(row, "voltage_kilovolt"),
        required(row, "spherical_aberration_millimetre"),
        required(row, "amplitude_contrast"),
    )
    if row.ctf is None:
        raise BadInputError(
            f"{row.name}: neither its defocus nor a nominal one is known; set tilt_ctf.enabled: true or "
            "tomogram.ctf: none"
        )
    undo = flip_phases if ctf == "phase_flip" else deconvolve
    return undo(image, row.ctf, optics, pixel_size_angstrom)


def _volume_row(name: str, rows: list[TiltRow], depth: int, work: _Work) -> VolumeRow:
    first = rows[0]
    pixel, unbinned_pixel = work.pixel_size_angstrom, required(first, "pixel_size_angstrom")
    height, width = int(required(first, "stored_height")), int(required(first, "stored_width"))
    # The tomogram's x lies across the tilt axis: where that lies along the camera's rows, sides change place.
    if abs(np.cos(np.radians(work.geometry.z_rot_degrees.mean()))) < np.sqrt(0.5):
        height, width = width, height

    def unbinned(side: int) -> int:
        return even_side(side * pixel / unbinned_pixel)

    return VolumeRow(
        name,
        OK,
        depth=depth,
        height=height,
        width=width,
        pixel_size_angstrom=pixel,
        unbinned_depth=unbinned(depth),
        unbinned_height=unbinned(height),
        unbinned_width=unbinned(width),
        unbinned_pixel_size_angstrom=unbinned_pixel,
        halves="frames" if work.has_frames else "tilts",
        min_tilt_degrees=float(work.geometry.y_tilt_degrees.min()),
        max_tilt_degrees=float(work.geometry.y_tilt_degrees.max()),
    )
