"""Clean the images of a tilt series, and bring them to the tomogram's pixel size."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.cli.series import read_tilts, reason_of, required, write_failed_series, write_tilts
from emflow.errors import BadInputError
from emflow.fourier import middle, square_shapes
from emflow.io.index import FAILED, TiltRow
from emflow.io.locations import location
from emflow.io.store import SHARD_MICROGRAPHS, StoreWriter, checksum
from emflow.io.tilt_images import TiltReader, relion_image_name
from emflow.metadata import FEWEST_TILTS
from emflow.tilt_images import (
    are_counts,
    block_means,
    complaints,
    exposure_weighted,
    stored_tilt,
)

if TYPE_CHECKING:
    from emflow.cli.tilt_movies import TiltMovies

STAGE = "correct_tilts"


@dataclass(frozen=True)
class _Look:
    """What one look at an image tells: its blocks' means, its spread, and where its pixels are now."""

    row: TiltRow
    blocks: NDArray[np.float64]
    spread: float


def correct_tilts(
    *,
    tilts: Path,
    output: Path,
    pixel_size_angstrom: float = 10.0,
    header_pixel_size_angstrom: float | None = None,
    exposure_weighting: bool = True,
    outlier_sigmas: float = 8.0,
    dark_fraction: float = 0.3,
    max_tilt_degrees: float = 90.0,
    gain: Path | None = None,
    gain_rotation: Literal[0, 1, 2, 3] = 0,
    gain_flip: Literal["none", "upside_down", "left_right"] = "none",
    defects: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
    stores: str | None = None,
) -> None:
    """Write a tilt series' cleaned images and their table; dark, blocked and empty ones are left out.

    Parameters
    ----------
    tilts
        The series' tilts.tsv.
    output
        The corrected.tsv to write; the store, and micrographs/ of corrected movies, lie beside it.
    pixel_size_angstrom
        Of the stored images: the tomogram's. Never finer than the data.
    header_pixel_size_angstrom
        What movies' headers say, where that differs from the pixel size in the table.
    exposure_weighting
        Whether to weigh each image's frequencies by the damage before it, where exposures are known.
    outlier_sigmas
        Pixels further than this many robust standard deviations from the median are clamped.
    dark_fraction
        An image darker than this share of what the others let expect is left out.
    max_tilt_degrees
        Images tilted further than this are left out.
    gain, gain_rotation, gain_flip, defects
        Of movies, as correct-motion takes them.
    device
        auto, cpu or cuda: where movies are aligned.
    threads
        Of the CPU.
    stores
        Folder or URL (s3://...) below which the store lies, instead of beside its index.
    """
    table, rows = read_tilts(tilts)
    if not rows:
        write_failed_series(STAGE, output, reason_of(table))
        return
    left_out: dict[str, TiltRow] = {}
    movies = None
    if any(row.is_movie for row in rows):
        from emflow.cli.tilt_movies import TiltMovies

        movies = TiltMovies.open(
            output.parent,
            pixel_size_angstrom,
            header_pixel_size_angstrom,
            gain,
            gain_rotation,
            gain_flip,
            defects,
            device,
            threads,
        )
    looks = []
    with TiltReader() as reader:
        for row in rows:
            if abs(required(row, "nominal_tilt_degrees")) > max_tilt_degrees:
                left_out[row.name] = replace(row, status=FAILED, reason="is tilted too far")
                continue
            try:
                looks.append(_look(row, reader, movies))
            except BadInputError as error:
                left_out[row.name] = replace(row, status=FAILED, reason=f"{row.path} {error}")
    looks = _alike(looks, left_out)
    reasons = complaints(
        [look.blocks for look in looks],
        np.array([required(look.row, "nominal_tilt_degrees") for look in looks]),
        np.array([look.spread for look in looks]),
        dark_fraction=dark_fraction,
    )
    used = []
    for look, reason in zip(looks, reasons, strict=True):
        if reason:
            left_out[look.row.name] = replace(look.row, status=FAILED, reason=reason)
        else:
            used.append(look)
    for row in left_out.values():
        say(STAGE, f"left out {row.name}: {row.reason}")
    if len(used) < FEWEST_TILTS:
        reason = f"{len(used)} of {len(table)} images are usable, and a tomogram takes {FEWEST_TILTS}"
        first = next(iter(left_out.values()), None)
        write_failed_series(STAGE, output, reason + (f"; the first: {first.reason}" if first else ""))
        return
    done = _store(used, output, pixel_size_angstrom, outlier_sigmas, exposure_weighting, movies, stores)
    write_tilts(output, table, {**left_out, **{row.name: row for row in done.rows}})
    done.writer.remove_superseded()
    say(STAGE, f"{len(done.rows)} of {len(table)} images kept")


def _look(row: TiltRow, reader: TiltReader, movies: "TiltMovies | None") -> _Look:
    """Read an image once; a movie is corrected and stands as an image of its own from then on."""
    if row.is_movie and movies is not None:
        row = movies.correct(row)
    else:
        row = replace(row, image_path=relion_image_name(row.path, row.section))
    image = reader.read_row(row)
    row = replace(row, height=image.shape[0], width=image.shape[1])
    return _Look(row, block_means(image), float(image.std(dtype=np.float64)))


def _alike(looks: list[_Look], left_out: dict[str, TiltRow]) -> list[_Look]:
    """Keep images of the size that most of them have."""
    sizes = [(look.row.height, look.row.width) for look in looks]
    if not sizes:
        return looks
    usual = max(set(sizes), key=lambda size: (sizes.count(size), size))
    for look, size in zip(looks, sizes, strict=True):
        if size != usual:
            reason = f"has {size[1]} x {size[0]} pixels, the others {usual[1]} x {usual[0]}"
            left_out[look.row.name] = replace(look.row, status=FAILED, reason=reason)
    return [look for look, size in zip(looks, sizes, strict=True) if size == usual]


@dataclass(frozen=True)
class _Stored:
    rows: list[TiltRow]
    writer: StoreWriter


def _store(
    looks: list[_Look],
    output: Path,
    wanted_pixel_size: float,
    outlier_sigmas: float,
    weighting: bool,
    movies: "TiltMovies | None",
    stores: str | None,
) -> _Stored:
    """Write the images, whole ones first, then those of even and of odd frames where there are any."""
    first = looks[0].row
    pixel = required(first, "pixel_size_angstrom")
    unbinned = (int(required(first, "height")), int(required(first, "width")))
    # A tomogram has one pixel size, so its images must have one.
    cut, shape = square_shapes(unbinned, pixel, max(pixel, wanted_pixel_size))
    size = pixel * max(cut) / max(shape)
    counts = are_counts(
        np.array([look.blocks.mean() for look in looks]), np.array([look.spread for look in looks])
    )
    halves = movies is not None and all(look.row.is_movie for look in looks)
    parts = ("", "even", "odd") if halves else ("",)
    count = len(looks)
    writer = StoreWriter(
        output,
        count=count * len(parts),
        shape=shape,
        pixel_size_angstrom=(size, size),
        names=[f"{look.row.name}{part and ' ' + part}" for part in parts for look in looks],
        root=None if stores is None else location(stores),
        axis="tilt",
    )

    def images() -> Iterator[NDArray[np.float32]]:
        with TiltReader() as reader:
            for part, look in itertools.product(parts, looks):
                row = look.row
                pixels = reader.read(_half(row, part), None) if part else reader.read_row(row)
                pixels = middle(pixels, cut)
                image = stored_tilt(pixels, shape, outlier_sigmas=outlier_sigmas, counts=counts)
                exposure = _exposure_in_the_middle(row)
                if weighting and exposure is not None:
                    voltage = required(row, "voltage_kilovolt")
                    image = exposure_weighted(image, size, exposure, voltage)
                yield image

    try:
        rows = []
        scale, group, position = 0.0, [], 0
        for number, image in enumerate(images()):
            # One scale for a whole series, so that 16 bits hold it well.
            scale = scale or 1.0 / max(float(image.std()), 1e-12)
            group.append(image * np.float32(scale))
            if number < count:
                row = looks[number].row
                rows.append(
                    replace(
                        row,
                        store=writer.name,
                        position=number,
                        even_position=count + number if halves else None,
                        odd_position=2 * count + number if halves else None,
                        stored_height=shape[0],
                        stored_width=shape[1],
                        stored_pixel_size_angstrom=size,
                        mean=float(looks[number].blocks.mean()),
                        standard_deviation=looks[number].spread,
                        checksum=checksum(group[-1]),
                    )
                )
            if len(group) == SHARD_MICROGRAPHS or number == count * len(parts) - 1:
                writer.write(position, np.stack(group))
                position, group = position + len(group), []
                say(STAGE, f"{position}/{count * len(parts)} images")
        writer.finish()
    except BaseException:
        writer.discard()
        raise
    return _Stored(rows, writer)


def _half(row: TiltRow, part: str) -> Path:
    path = Path(row.image_path)
    return path.with_name(f"{path.stem}_{part}.mrc")


def _exposure_in_the_middle(row: TiltRow) -> float | None:
    before, own = row.pre_exposure_electrons_per_square_angstrom, row.exposure_electrons_per_square_angstrom
    return None if before is None else before + (own or 0.0) / 2
