"""Say what a session came to, and draw it: summary.json, summary.txt, overlays/*.png, ctf/*.png."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from emflow.cli.progress import say
from emflow.io.ctf_pictures import ctf_picture_path, read_ctf_picture
from emflow.io.files import replacing, write_text
from emflow.io.index import (
    FAILED,
    OK,
    SUPERSEDED,
    ExportedRow,
    ExportRow,
    PickRow,
    StoreRow,
    read_index,
)
from emflow.io.locations import find_store
from emflow.io.star import read_star
from emflow.io.store import level_shapes, read_image
from emflow.metadata import DOUBTFUL_CTF, Picks
from emflow.overlay import draw_picks, draw_rings
from emflow.relion import coordinate_path, extraction_box_pixels
from emflow.summary import Summary, quantiles, summary_text

# A picture is about this many pixels wide: finer levels of the stored pyramid would be read for nothing.
_PICTURE_PIXELS = 1200


def summarise(*, export: Path, session: str, diameter_angstrom: float, overlays: int, output: Path) -> None:
    """Write summary.json, summary.txt, the overlays and the pictures of CTF fits of a session.

    Parameters
    ----------
    export
        The session's relion/export.tsv; the batches' tables lie in the folders beside relion/.
    session
        The session's name.
    diameter_angstrom
        Of the circles.
    overlays
        Draw all micrographs up to this many, else an even sample.
    output
        The summary.json to write; summary.txt, overlays/ and ctf/ lie beside it.
    """
    relion = export.parent
    folder = output.parent
    batches = [row.batch for row in read_index(export, ExportRow)]
    exported = read_index(relion / "micrographs.tsv", ExportedRow)
    rows = [row for batch in batches for row in read_index(folder / batch / "picks.tsv", PickRow)]
    used = [row for row in exported if row.status == OK]
    pictures = _draw_overlays(used, folder, relion, diameter_angstrom, overlays)
    fitted = _draw_ctfs(used, folder, overlays)
    thresholds = sorted({row.threshold for row in used if row.threshold is not None})
    counts = [row.particles or 0 for row in used]
    ctf = (relion / "micrographs_ctf.star").is_file()
    star = "micrographs_ctf.star" if ctf else "micrographs.star"
    summary = Summary(
        session=session,
        micrographs=len(used),
        particles=sum(counts),
        candidates=sum(row.candidates or 0 for row in rows),
        diameter_angstrom=diameter_angstrom,
        threshold=thresholds[0] if len(thresholds) == 1 else None,
        failures={row.name: row.reason for row in exported if row.status == FAILED},
        superseded=sum(row.status == SUPERSEDED for row in rows),
        particles_per_micrograph=quantiles(counts),
        defocus_angstrom=_quantiles(row.defocus_angstrom for row in used),
        ctf_max_resolution_angstrom=_quantiles(row.ctf_max_resolution_angstrom for row in used),
        doubtful_ctfs=_doubtful(used),
        unfamiliar={row.name: row.unfamiliar for row in rows if row.unfamiliar},
        micrographs_without_particles=[row.name for row in used if not row.particles],
        motion_angstrom=_motion(used),
        files={
            "STAR": str(relion / "autopick.star"),
            "particles": str(relion / "particles.star"),
            "pictures": f"{folder / 'overlays'}/ ({pictures} of {len(used)} micrographs)",
            **({"CTF fits": f"{folder / 'ctf'}/ ({fitted} of {len(used)} micrographs)"} if fitted else {}),
            "left out": str(relion / "failures.tsv"),
        },
    )
    box = extraction_box_pixels(diameter_angstrom, used[0].pixel_size_angstrom or 1.0) if used else 0
    commands = [
        f"cd {relion}",
        f"relion_preprocess --i {star} --coord_list autopick.star --part_star Extract/particles.star "
        f"--part_dir Extract/ --extract --extract_size {box} --norm --bg_radius {round(0.375 * box)} "
        "--invert_contrast    # RELION 4 and 5",
        f"relion_preprocess --i {star} --coord_dir AutoPick/ --coord_suffix _autopick.star --part_star "
        f"Extract/particles.star --part_dir Extract/ --extract --extract_size {box} --norm "
        f"--bg_radius {round(0.375 * box)} --invert_contrast    # RELION 3.1",
    ]
    write_text(folder / "summary.txt", summary_text(summary, commands))
    write_text(output, json.dumps(summary.to_dict(), indent=2) + "\n")
    say("summarise", f"{session}: {summary.particles} particles from {summary.micrographs} micrographs")


def _quantiles(numbers: Iterable[float | None]) -> dict[str, float]:
    return quantiles([number for number in numbers if number is not None])


def _doubtful(rows: Sequence[ExportedRow]) -> dict[str, float]:
    """Return the figures of merit of doubtful CTFs, worst first."""
    merits = [(row.ctf_figure_of_merit, row.name) for row in rows if row.ctf_figure_of_merit is not None]
    return {name: merit for merit, name in sorted(merits) if merit < DOUBTFUL_CTF}


def _motion(rows: Sequence[ExportedRow]) -> dict[str, dict[str, float]]:
    parts = {
        "total": [row.motion_total_angstrom for row in rows],
        "early": [row.motion_early_angstrom for row in rows],
        "late": [row.motion_late_angstrom for row in rows],
    }
    known = {part: [value for value in values if value is not None] for part, values in parts.items()}
    return {part: quantiles(values) for part, values in known.items() if values}


def _sample(rows: Sequence[ExportedRow], most: int) -> list[ExportedRow]:
    """Return all rows, or ``most`` of them spread evenly over the session."""
    if len(rows) <= most:
        return list(rows)
    return [rows[position] for position in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _draw_overlays(
    rows: Sequence[ExportedRow], folder: Path, relion: Path, diameter_angstrom: float, most: int
) -> int:
    """Draw the pictures of a session, remove those of an earlier run, and return how many there are."""
    target = folder / "overlays"
    target.mkdir(exist_ok=True)
    wanted: set[Path] = set()
    stored: dict[str, tuple[str, dict[str, StoreRow]]] = {}
    for number, row in enumerate(chosen := _sample(rows, most), 1):
        if row.batch not in stored:
            stored[row.batch] = _images(folder / row.batch)
        kind, images = stored[row.batch]
        picture = target / f"{row.name.replace('/', '__')}.png"
        wanted.add(picture)
        _draw_one(row, kind, images[row.name], folder / row.batch, relion, diameter_angstrom, picture)
        if number % 20 == 0 or number == len(chosen):
            say("summarise", f"{number}/{len(chosen)} pictures")
    for stale in set(target.glob("*.png")) - wanted:
        stale.unlink()
    return len(wanted)


def _draw_ctfs(rows: Sequence[ExportedRow], folder: Path, most: int) -> int:
    """Draw the CTF fits of a sample, remove those of an earlier run, and return how many there are."""
    target = folder / "ctf"
    fitted = [row for row in rows if row.ctf_figure_of_merit is not None]
    wanted = {target / f"{row.name.replace('/', '__')}.png": row for row in _sample(fitted, most)}
    for path, row in wanted.items():
        error = row.ctf_defocus_error_angstrom
        caption = (
            f"{row.name}   defocus {row.defocus_angstrom:.0f}"
            f"{'' if error is None else f' +- {error:.0f}'} A, fitted to "
            f"{row.ctf_max_resolution_angstrom:.1f} A, figure of merit {row.ctf_figure_of_merit:.2f}"
        )
        picture = read_ctf_picture(ctf_picture_path(folder / row.batch, row.name))
        with replacing(path) as partial:
            draw_rings(picture, caption).save(partial)
    for stale in set(target.glob("*.png")) - wanted.keys():
        stale.unlink()
    return len(wanted)


def _images(batch: Path) -> tuple[str, dict[str, StoreRow]]:
    """Return the images to draw on: denoised ones where there are, as people see more in them."""
    for kind, table in (("denoised", batch / "denoised.tsv"), ("as recorded", batch / "tiles.tsv")):
        if table.is_file():
            return kind, {row.name: row for row in read_index(table, StoreRow) if row.status == OK}
    return "", {}


def _draw_one(
    row: ExportedRow,
    kind: str,
    stored: StoreRow,
    batch: Path,
    relion: Path,
    diameter_angstrom: float,
    picture: Path,
) -> None:
    height, width = stored.height or 0, stored.width or 0
    shapes = level_shapes((height, width))
    level = max(n for n, shape in enumerate(shapes) if n == 0 or max(shape) >= _PICTURE_PIXELS)
    image = read_image(find_store(batch, stored.store), stored.position or 0, level)
    drawn = draw_picks(
        image,
        _exported_picks(relion / coordinate_path(row.micrograph_name)),
        unbinned_shape=(stored.unbinned_height or 0, stored.unbinned_width or 0),
        pixel_size_angstrom=(stored.pixel_size_angstrom or 1.0) * height / image.shape[0],
        diameter_angstrom=diameter_angstrom,
        caption=f"{row.name}   {row.particles} particles, figure of merit >= {row.threshold:.2f}   ({kind})",
    )
    with replacing(picture) as partial:
        drawn.save(partial, optimize=False, compress_level=4)


def _exported_picks(path: Path) -> Picks:
    if not path.is_file():
        return Picks(np.empty(0), np.empty(0), np.empty(0))
    (table,) = read_star(path).values()
    columns = ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit")
    x, y, merit = (np.asarray(table[column], dtype=np.float64) for column in columns)
    return Picks(x, y, merit)
