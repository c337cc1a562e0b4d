"""One tilt series, from whichever file describes it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emflow.errors import BadInputError
from emflow.io.movies.mrc import read_layout
from emflow.io.tilt_series.aretomo import read_aln
from emflow.io.tilt_series.exposures import (
    Alignment,
    Exposure,
    TiltSeries,
    belongs,
    tilt_series,
    with_header,
    without_strays,
)
from emflow.io.tilt_series.images import files_of, find_movie, with_section
from emflow.io.tilt_series.imod import STACK_SUFFIXES, bare_name, beside, read_tilts, read_transforms
from emflow.io.tilt_series.mdoc import Mdoc, read_mdoc
from emflow.io.tilt_series.warp import read_warp


def read_tilt_series(
    path: Path,
    *,
    star: Path | None = None,
    name: str | None = None,
    frames: Path | None = None,
    pixel_size_angstrom: float | None = None,
    axis_degrees: float | None = None,
    exposure_per_tilt: float | None = None,
) -> TiltSeries:
    """Read a tilt series' exposures from its mdoc, its stack, or its RELION 5 STAR file.

    Parameters
    ----------
    path
        The file: ``.mdoc``, a stack, or a series' own ``.star``.
    star, name
        RELION's STAR file of all series, and the series' name in it.
    frames
        Folder of the movies, where they do not lie beside the mdoc.
    pixel_size_angstrom, axis_degrees, exposure_per_tilt
        In place of what the files say.

    Raises
    ------
    BadInputError
        If it cannot be read, its files do not fit one another, or too few of its images can be used.
    """
    suffix = path.suffix.lower()
    if suffix == ".star":
        from emflow.io.tilt_series.relion5 import read_relion_series, read_series_list

        listed = (
            next((one for one in read_series_list(star) or () if one.name == name), None) if star else None
        )
        series = read_relion_series(
            path,
            listed,
            pixel_size_angstrom=pixel_size_angstrom,
            axis_degrees=axis_degrees,
            exposure_per_tilt=exposure_per_tilt,
        )
    elif suffix == ".mdoc":
        series = _from_mdoc(path, frames, pixel_size_angstrom, axis_degrees, exposure_per_tilt)
    elif suffix in STACK_SUFFIXES:
        series = _from_stack(path, pixel_size_angstrom, axis_degrees, exposure_per_tilt)
    else:
        raise BadInputError(
            f"is no tilt series by its name (*{path.suffix}): .mdoc, .star or {', '.join(STACK_SUFFIXES)}"
        )
    return series


def stack_of(mdoc: Path, image_name: str) -> Path | None:
    """Return the stack that an mdoc describes: of its own name, else the one it names, beside it."""
    names = [
        mdoc.name.removesuffix(".mdoc"),
        *(bare_name(mdoc) + suffix for suffix in STACK_SUFFIXES),
        image_name,
    ]
    paths = [mdoc.with_name(name) for name in names if name]
    return next((path for path in paths if path.suffix.lower() in STACK_SUFFIXES and path.is_file()), None)


def _from_mdoc(
    path: Path,
    frames: Path | None,
    pixel_size_angstrom: float | None,
    axis_degrees: float | None,
    exposure_per_tilt: float | None,
) -> TiltSeries:
    mdoc = read_mdoc(path)
    folders = [path.parent] if frames is None else [frames, path.parent]
    files = files_of(folders)
    movies = [find_movie(files, one.frames_name) if one.frames_name else None for one in mdoc.sections]
    stack = stack_of(path, mdoc.image_name)
    notes: list[str] = []
    if frames is None and not any(movies) and stack is not None:
        exposures = [
            with_section(
                replace(one, name=f"{bare_name(path)}_{section + 1:04d}", path=stack, section=section)
            )
            for one, section in zip(
                _described(mdoc, axis_degrees, notes), (s.z_value for s in mdoc.sections), strict=True
            )
        ]
        layout = read_layout(stack)
        if layout.frames != len(exposures):
            raise BadInputError(
                f"describes {len(exposures)} sections, and {stack.name} holds {layout.frames} images"
            )
        place: Callable[[int], int] = lambda index: mdoc.sections[index].z_value  # noqa: E731
    elif any(movies) or any(one.frames_name for one in mdoc.sections):
        exposures = [
            replace(one, path=path, reason="its section names no SubFramePath")
            if not section.frames_name
            else replace(
                one,
                name=Path(section.frames_name).stem,
                path=path.with_name(section.frames_name),
                reason=f"there is no {section.frames_name} in {' or '.join(map(str, folders))}",
            )
            if movie is None
            else with_header(replace(one, name=movie.stem, path=movie))
            for one, section, movie in zip(
                _described(mdoc, axis_degrees, notes), mdoc.sections, movies, strict=True
            )
        ]
        place = lambda index: exposures[index].order  # noqa: E731
        stack = None
    else:
        raise BadInputError(
            f"names no movies, and there is no stack {mdoc.image_name or bare_name(path)} beside it"
        )
    exposures = without_strays([_scaled(one, mdoc) for one in exposures])
    stated = _stated(exposures)
    exposures, source = _aligned(_sized(exposures, pixel_size_angstrom), path, stack, place, notes)
    return tilt_series(
        exposures,
        exposure_per_tilt=exposure_per_tilt,
        notes=notes,
        stated_pixel_size_angstrom=stated,
        voltage_kilovolt=mdoc.voltage_kilovolt,
        alignment_source=source,
    )


def _described(mdoc: Mdoc, axis_degrees: float | None, notes: list[str]) -> list[Exposure]:
    """Return what an mdoc says of its exposures, in the order of the file, with their order in time."""
    times = [one.time for one in mdoc.sections]
    known = [time for time in times if time is not None]
    order = list(range(len(times)))
    if len(known) == len(times):
        order.sort(key=lambda index: (known[index], index))
    else:
        notes.append(
            "some of its sections have no DateTime that can be read: they are taken in the mdoc's order"
        )
    rank = {index: number for number, index in enumerate(order)}
    return [
        Exposure(
            name=f"{index:04d}",
            path=Path(),
            tilt_degrees=one.tilt_degrees,
            axis_degrees=mdoc.axis_degrees if axis_degrees is None else axis_degrees,
            nominal_defocus_angstrom=None
            if one.target_defocus_micrometre is None
            else -1e4 * one.target_defocus_micrometre,
            order=rank[index],
            exposure_electrons_per_square_angstrom=one.exposure_electrons_per_square_angstrom,
        )
        for index, one in enumerate(mdoc.sections)
    ]


def _scaled(exposure: Exposure, mdoc: Mdoc) -> Exposure:
    """Return an exposure with the mdoc's pixel size, which super-resolution halves, else its own header's."""
    if exposure.height is None or exposure.width is None:
        return replace(exposure, pixel_size_angstrom=None)
    spacing = mdoc.pixel_size_angstrom or exposure.pixel_size_angstrom
    if spacing is not None and mdoc.image_size is not None and mdoc.pixel_size_angstrom is not None:
        ratio = max(exposure.height, exposure.width) / max(mdoc.image_size)
        power = round(np.log2(ratio))
        if abs(power) <= 2 and abs(ratio / 2.0**power - 1) < 0.05:
            spacing /= 2.0**power
    return replace(exposure, pixel_size_angstrom=spacing)


def _stated(exposures: Sequence[Exposure]) -> float | None:
    """Return the pixel size that the files state of the images; 1 A is what stands where none was set."""
    sizes = (one.pixel_size_angstrom for one in exposures if not one.reason)
    return next((size for size in sizes if size is not None and size != 1.0), None)


def _sized(exposures: Sequence[Exposure], pixel_size_angstrom: float | None) -> list[Exposure]:
    """Return exposures with the pixel size that was given, if one was."""
    if pixel_size_angstrom is None:
        return list(exposures)
    return [replace(one, pixel_size_angstrom=pixel_size_angstrom) for one in exposures]


def _from_stack(
    path: Path, pixel_size_angstrom: float | None, axis_degrees: float | None, exposure_per_tilt: float | None
) -> TiltSeries:
    layout = read_layout(path)
    lists = [file for suffix in (".rawtlt", ".tlt") if (file := beside(path, suffix))]
    mdoc_path = next(
        (file for name in (path.name, bare_name(path)) if (file := path.with_name(f"{name}.mdoc")).is_file()),
        None,
    )
    notes: list[str] = []
    voltage = None
    blank = [Exposure(name="", path=path, axis_degrees=axis_degrees, order=n) for n in range(layout.frames)]
    tilts = read_tilts(lists[0], layout.frames) if lists else None
    if mdoc_path is not None:
        mdoc = read_mdoc(mdoc_path)
        if len(mdoc.sections) != layout.frames:
            raise BadInputError(
                f"has {layout.frames} images, and {mdoc_path.name} {len(mdoc.sections)} sections"
            )
        described = _described(mdoc, axis_degrees, notes)
        by_section = sorted(range(layout.frames), key=lambda index: mdoc.sections[index].z_value)
        blank = [_scaled(with_section(replace(described[i], path=path)), mdoc) for i in by_section]
        voltage = mdoc.voltage_kilovolt
    elif tilts is None:
        name = bare_name(path)
        raise BadInputError(f"has no tilt angles: no {name}.rawtlt, {name}.tlt or {path.name}.mdoc beside it")
    else:
        notes.append("no mdoc says when its images were taken: the stack's order is taken for that of time")
    exposures = [
        with_section(
            replace(
                one,
                name=f"{bare_name(path)}_{section + 1:04d}",
                section=section,
                tilt_degrees=one.tilt_degrees if tilts is None else tilts[section],
            )
        )
        for section, one in enumerate(blank)
    ]
    stated = _stated(exposures)
    exposures, source = _aligned(
        _sized(exposures, pixel_size_angstrom), path, path, lambda index: index, notes
    )
    return tilt_series(
        exposures,
        exposure_per_tilt=exposure_per_tilt,
        notes=notes,
        stated_pixel_size_angstrom=stated,
        voltage_kilovolt=voltage,
        alignment_source=source,
    )


def _aligned(
    exposures: list[Exposure], path: Path, stack: Path | None, place: Callable[[int], int], notes: list[str]
) -> tuple[list[Exposure], str]:
    """Return the exposures with the alignment that lies beside their file, and its kind.

    ``place`` tells of each exposure which one of AreTomo's sections it is, from 0.
    """
    pixel_size = next((one.pixel_size_angstrom for one in exposures if one.pixel_size_angstrom), None)
    nominal = [one.tilt_degrees for one in exposures]
    xf, aln, xml = (beside(path, suffix) for suffix in (".xf", ".aln", ".xml"))
    tlt = beside(path, ".tlt")
    is_ali = stack is not None and stack.suffix.lower() == ".ali"
    if stack is not None and (is_ali or (xf is not None and tlt is not None)):
        first = next((one for one in exposures if one.height and one.width), None)
        if first is None or first.height is None or first.width is None or pixel_size is None:
            return exposures, ""
        by_place: dict[int, float | None] = {place(i): tilt for i, tilt in enumerate(nominal)}
        in_stack = [by_place[section] for section in range(len(exposures))]
        images = read_transforms(stack, in_stack, (first.height, first.width), pixel_size)
        if images is not None:
            return _attached(
                exposures, [images[place(i)] for i in range(len(exposures))], ""
            ), "imported:imod"
    if xf is not None and not is_ali:
        notes.append(f"{xf.name} is left out: it takes a stack and a .tlt of its own")
    if aln is not None and pixel_size is not None:
        read = read_aln(aln, pixel_size)
        found = dict(zip(read.sections, read.images, strict=True))
        matched = [found.get(place(i)) for i in range(len(exposures))]
        if len(found) > len(exposures) or not any(matched):
            raise BadInputError(f"has {len(exposures)} exposures, and {aln.name} {len(found)} images")
        _check(nominal, matched, aln.name)
        return _attached(exposures, matched, aln.name), "imported:aretomo"
    if xml is not None:
        warp = read_warp(xml)
        by_movie = dict(zip(warp.movies, range(len(warp.movies)), strict=True))
        names = [by_movie.get(one.path.name) for one in exposures]
        if not any(name is not None for name in names):
            names = list(range(len(exposures))) if len(warp.images) == len(exposures) else []
        if not names:
            raise BadInputError(f"has {len(exposures)} exposures, and {xml.name} {len(warp.images)} images")
        matched = [warp.images[i] if i is not None and warp.used[i] else None for i in names]
        _check(nominal, matched, xml.name)
        return _attached(exposures, matched, xml.name), "imported:warp"
    return exposures, ""


def _check(nominal: Sequence[float | None], matched: Sequence[Alignment | None], source: str) -> None:
    """Make sure that tilts agree, of one sign or, as Warp may have it, of the other."""
    pairs = [
        (tilt, one.y_tilt_degrees) for tilt, one in zip(nominal, matched, strict=True) if one is not None
    ]
    tilts, aligned = [tilt for tilt, _ in pairs], np.array([tilt for _, tilt in pairs])
    try:
        belongs(tilts, -aligned, source)
    except BadInputError:
        belongs(tilts, aligned, source)


def _attached(exposures: list[Exposure], images: Sequence[Alignment | None], source: str) -> list[Exposure]:
    return [
        replace(one, alignment=image)
        if image is not None
        else replace(one, reason=one.reason or f"{source} leaves it out")
        for one, image in zip(exposures, images, strict=True)
    ]
