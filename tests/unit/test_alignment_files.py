"""Alignments as AreTomo and Warp write them: which image each line is of, and where it puts a point."""

from collections.abc import Sequence
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emflow.errors import BadInputError
from emflow.io.tilt_series import TiltSeries, read_tilt_series
from emflow.io.tilt_series.aretomo import read_aln
from emflow.io.tilt_series.exposures import Alignment
from emflow.io.tilt_series.warp import read_warp
from emflow.tilt_geometry import TiltGeometry

PIXEL = 2.0
POINT = np.array([[30.0, 20.0, 10.0]])
TILTS = (0.0, 3.0, -3.0, -6.0, 6.0, 9.0)  # in the order of time, as in the stack
# x cos 30 + z sin 30 of the point: where a tilt of 30 degrees shows it across the axis
ACROSS = 30 * np.cos(np.pi / 6) + 10 * np.sin(np.pi / 6)

ALN = """\
# AreTomo Alignment / Priims bprmMn
# RawSize = 64 48 5
# NumPatches = 4
# DarkFrame =     2    {dark}    -3.00
# AlphaOffset =     0.00
# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT
{rows}
# Local Alignment
   0   0   11.00   12.00   13.00   14.00  1.0
"""


def projected(images: Sequence[Alignment]) -> np.ndarray:
    """Return (x, y) of the point in every image, in angstrom from its centre."""
    names = ("x_tilt_degrees", "y_tilt_degrees", "z_rot_degrees", "x_shift_angstrom", "y_shift_angstrom")
    columns = [np.array([getattr(image, name) for image in images]) for name in names]
    return TiltGeometry(*columns).project(POINT)[:, 0]


def aln_row(section: int, tilt: float, axis: float = 90.0, x: float = 4.0, y: float = -6.0) -> str:
    return f"{section:5d} {axis:9.4f} 1.00000 {x:9.3f} {y:9.3f} 1.00 1.00 1.00 0.00 {tilt:8.2f}"


def write_aln(path: Path, sections: Sequence[int], dark: int, tilts: Sequence[float] = TILTS) -> Path:
    rows = "\n".join(aln_row(section, tilt) for section, tilt in zip(sections, tilts, strict=True))
    path.write_text(ALN.format(dark=dark, rows=rows))
    return path


def aretomo_series(folder: Path) -> Path:
    """Write a stack and its tilts."""
    data = np.random.default_rng(0).normal(50, 3, (len(TILTS), 24, 32)).astype(np.float32)
    with mrcfile.new(folder / "s.st", data=data) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = PIXEL
    (folder / "s.rawtlt").write_text("".join(f"{tilt}\n" for tilt in TILTS))
    return folder / "s.st"


def test_aretomo_puts_a_point_where_its_xf_has_it(tmp_path: Path) -> None:
    rows = [aln_row(1, 30.0), aln_row(2, 30.0, axis=0.0)]
    (tmp_path / "s.aln").write_text(ALN.format(dark=3, rows="\n".join(rows)))
    found = projected(read_aln(tmp_path / "s.aln", PIXEL).images)
    # The raw image shows Rz(ROT) (across, y) + T; an axis at 90 degrees takes x to y, and y to -x
    np.testing.assert_allclose(found[0], [-20 + 4 * PIXEL, ACROSS - 6 * PIXEL])
    np.testing.assert_allclose(found[1], [ACROSS + 4 * PIXEL, 20 - 6 * PIXEL])


@pytest.mark.parametrize(
    ("sections", "dark", "expected"),
    [
        ((1, 2, 4, 5), 3, (0, 1, 3, 4)),  # as new versions count
        ((0, 1, 3, 4), 2, (0, 1, 3, 4)),  # as old ones do
        ((1, 2, 3, 4), 0, (1, 2, 3, 4)),  # old: it is the first that was dark
        ((3, 1, 5, 2), 4, (2, 0, 4, 1)),  # in whatever order
    ],
)
def test_aretomo_counts_sections_from_0_or_from_1(
    tmp_path: Path, sections: tuple[int, ...], dark: int, expected: tuple[int, ...]
) -> None:
    path = write_aln(tmp_path / "s.aln", sections, dark, (-6.0, -3.0, 3.0, 6.0))
    assert read_aln(path, PIXEL).sections == expected


def test_aretomos_columns_go_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "s.aln").write_text("# TILT SEC TX TY GMAG ROT\n30 1 4 -6 1 90\n")
    (image,) = read_aln(tmp_path / "s.aln", PIXEL).images
    assert (image.y_tilt_degrees, image.z_rot_degrees) == (30, 90)
    assert (image.x_shift_angstrom, image.y_shift_angstrom) == (8, -12)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# SEC ROT GMAG TX TY TILT\n1 90 1 4 -6 30\n2 90 1 four -6 33\n", r"s\.aln whose line 3 cannot"),
        ("# SEC ROT GMAG TX TY TILT\n1 90 1 4 -6\n", r"s\.aln whose line 2 cannot be read"),
        ("1 90 1 4 -6 30\n", r"s\.aln whose line 1 cannot be read"),
        ("# SEC ROT GMAG TX TY TILT\n", r"s\.aln that aligns no image"),
    ],
)
def test_an_aln_that_cannot_be_read_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "s.aln").write_text(text)
    with pytest.raises(BadInputError, match=told):
        read_aln(tmp_path / "s.aln", PIXEL)


def test_an_aln_beside_a_stack_goes_to_its_sections(tmp_path: Path) -> None:
    stack = aretomo_series(tmp_path)
    # Sorted by tilt, as AreTomo writes it; the one of -3 degrees, the third section, was dark
    write_aln(tmp_path / "s.aln", (4, 1, 2, 5, 6), 3, (-5.5, 0.5, 3.5, 6.5, 9.5))
    series = read_tilt_series(stack)
    assert series.alignment_source == "imported:aretomo"
    assert {one.tilt_degrees: one.reason for one in series.exposures if one.reason} == {
        -3.0: "s.aln leaves it out"
    }
    aligned = {one.tilt_degrees: one.alignment.y_tilt_degrees for one in series.usable if one.alignment}
    assert aligned == {-6.0: -5.5, 0.0: 0.5, 3.0: 3.5, 6.0: 6.5, 9.0: 9.5}
    assert series.usable[0].alignment is not None
    assert series.usable[0].alignment.x_shift_angstrom == 4 * PIXEL


def test_an_aln_beside_movies_counts_them_by_time(tmp_path: Path) -> None:
    mdoc = movie_series(tmp_path, [f"t{number}.mrc" for number in range(len(TILTS))])
    # The mdoc is sorted by tilt; TILTS are in the order of time, which is that of the sections
    header, *sections = mdoc.read_text().split("[ZValue")
    timed = [f"{one}DateTime = 01-Jan-26  10:0{number}:00\n\n" for number, one in enumerate(sections)]
    mdoc.write_text("[ZValue".join([header, *(timed[n] for n in np.argsort(TILTS))]))
    write_aln(tmp_path / "s.aln", range(1, 7), 9, [tilt + 0.5 for tilt in TILTS])
    assert found_tilts(read_tilt_series(mdoc)) == {tilt: tilt + 0.5 for tilt in TILTS}


def test_an_aln_of_another_series_is_refused(tmp_path: Path) -> None:
    stack = aretomo_series(tmp_path)
    write_aln(tmp_path / "s.aln", range(1, 7), 9, (0.0, 3.0, 9.0, -6.0, 6.0, 9.0))
    with pytest.raises(BadInputError, match=r"and s\.aln do not belong together"):
        read_tilt_series(stack)
    write_aln(tmp_path / "s.aln", range(1, 8), 9, (*TILTS, 12.0))
    with pytest.raises(BadInputError, match=r"has 6 exposures, and s\.aln 7 images"):
        read_tilt_series(stack)


def warp_xml(
    path: Path,
    *,
    angles: Sequence[float] = TILTS,
    axis: float = 90.0,
    movies: Sequence[str] = (),
    used: Sequence[bool] = (),
    grid: str = "",
    levels: tuple[float, float] = (0.0, 0.0),
) -> Path:
    """Write an .xml of offsets 5 and -7 A."""
    lists = {
        "Angles": angles,
        "UseTilt": used,
        "AxisAngle": [axis] * len(angles),
        "AxisOffsetX": [5.0] * len(angles),
        "AxisOffsetY": [-7.0] * len(angles),
        "MoviePath": movies,
    }
    parts = [f"<{name}>{chr(10).join(map(str, values))}</{name}>" for name, values in lists.items() if values]
    path.write_text(
        f'<?xml version="1.0"?>\n<TiltSeries LevelAngleX="{levels[0]}" LevelAngleY="{levels[1]}">\n'
        f"{''.join(parts)}{grid}</TiltSeries>\n"
    )
    return path


def grid(axis: str, depth: int) -> str:
    """Return a grid of 3 x 3 nodes for each of some moments: 100 at its border, the moment in the middle."""
    nodes = "".join(
        f'<Node X="{x}" Y="{y}" Z="{z}" Value="{z if (x, y) == (1, 1) else 100}" />'
        for z in range(depth)
        for y in range(3)
        for x in range(3)
    )
    return f'<GridMovement{axis} Width="3" Height="3" Depth="{depth}">{nodes}</GridMovement{axis}>'


def test_warp_turns_the_other_way_and_adds_its_offsets(tmp_path: Path) -> None:
    images = read_warp(warp_xml(tmp_path / "s.xml", angles=(-30.0, -30.0))).images
    np.testing.assert_allclose(projected(images), [[-20 + 5, ACROSS - 7]] * 2)
    (flat, *_) = read_warp(warp_xml(tmp_path / "s.xml", angles=(-30.0, -20.0), axis=0.0)).images
    np.testing.assert_allclose(projected([flat]), [[ACROSS + 5, 20 - 7]])


def test_warp_levels_the_specimen(tmp_path: Path) -> None:
    path = warp_xml(tmp_path / "s.xml", angles=(-30.0,), axis=0.0, levels=(90.0, -15.0))
    # About x by 90 degrees y goes to z, and z to -y; then 45 degrees about y
    across = (30 + 20) * np.cos(np.pi / 4)
    np.testing.assert_allclose(projected(read_warp(path).images), [[across + 5, -10 - 7]])


@pytest.mark.parametrize("depth", [6, 3])
def test_warps_movement_of_the_middle_is_taken_off(tmp_path: Path, depth: int) -> None:
    flat = read_warp(warp_xml(tmp_path / "s.xml")).images
    moved = read_warp(warp_xml(tmp_path / "s.xml", grid=grid("X", depth) + grid("Y", 1))).images
    off = projected(flat) - projected(moved)
    np.testing.assert_allclose(off[:, 0], np.linspace(0, depth - 1, len(TILTS)), atol=1e-12)
    np.testing.assert_allclose(off[:, 1], 0, atol=1e-12)


def movie_series(folder: Path, names: Sequence[str]) -> Path:
    """Write an mdoc and its movies."""
    lines = ["PixelSpacing = 2", "Voltage = 300", "", "[T = Tilt axis angle = 85, binning = 1]", ""]
    for number, (name, tilt) in enumerate(zip(names, TILTS, strict=True)):
        with mrcfile.new(folder / name, data=np.ones((3, 24, 32), dtype=np.float32)) as mrc:
            mrc.set_image_stack()
        lines += [f"[ZValue = {number}]", f"TiltAngle = {tilt}", f"SubFramePath = X:\\{name}", ""]
    (folder / "s.mdoc").write_text("\n".join(lines))
    return folder / "s.mdoc"


def found_tilts(series: TiltSeries) -> dict[float | None, float | None]:
    return {
        one.tilt_degrees: one.alignment.y_tilt_degrees if one.alignment else None for one in series.exposures
    }


def test_warps_images_are_found_by_the_names_of_their_movies(tmp_path: Path) -> None:
    names = [f"t{number}.mrc" for number in range(len(TILTS))]
    mdoc = movie_series(tmp_path, names)
    order = [3, 2, 0, 1, 4, 5]  # sorted by tilt
    warp_xml(
        tmp_path / "s.xml",
        angles=[0.5 - TILTS[n] for n in order],
        movies=[f"..\\frames\\{names[n]}" for n in order],
        used=[n != 2 for n in order],
    )
    series = read_tilt_series(mdoc)
    assert series.alignment_source == "imported:warp"
    assert found_tilts(series) == {-6.0: -6.5, -3.0: None, 0.0: -0.5, 3.0: 2.5, 6.0: 5.5, 9.0: 8.5}
    assert [one.reason for one in series.exposures if one.reason] == ["s.xml leaves it out"]


def test_warps_images_without_names_go_by_their_order(tmp_path: Path) -> None:
    mdoc = movie_series(tmp_path, [f"t{number}.mrc" for number in range(len(TILTS))])
    warp_xml(tmp_path / "s.xml", angles=[0.5 - tilt for tilt in TILTS])
    assert found_tilts(read_tilt_series(mdoc)) == {tilt: tilt - 0.5 for tilt in TILTS}
    warp_xml(tmp_path / "s.xml", angles=TILTS[:5])
    with pytest.raises(BadInputError, match=r"has 6 exposures, and s\.xml 5 images"):
        read_tilt_series(mdoc)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<TiltSeries>", "cannot be read"),
        ("<Movie></Movie>", "is no tilt series of Warp: it holds Movie"),
        ("<TiltSeries><Angles>1\n2</Angles></TiltSeries>", "without AxisAngle: it is not aligned"),
        ("<TiltSeries><Angles>one</Angles></TiltSeries>", "whose Angles cannot be read"),
        (
            "<TiltSeries><Angles>1\n2</Angles><AxisAngle>3</AxisAngle><AxisOffsetX>4\n4</AxisOffsetX>"
            "<AxisOffsetY>5\n5</AxisOffsetY></TiltSeries>",
            "whose lists differ in length",
        ),
    ],
)
def test_an_xml_of_something_else_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "s.xml").write_text(text)
    with pytest.raises(BadInputError, match=rf"has an s\.xml .*{told}|has an s\.xml {told}"):
        read_warp(tmp_path / "s.xml")


def test_a_real_alignment_of_warp_is_that_of_its_tilts(shared_data: Path) -> None:
    folder = shared_data / "data/3_tomography/cryocat/TS_017"
    found = read_warp(folder / "017.xml")
    assert found.movies[0] == "017_01.mrc"
    assert len(found.movies) == len(found.images) == len(found.used) == 60
    tilts = np.loadtxt(folder / "017.tlt")
    np.testing.assert_allclose([-image.y_tilt_degrees for image in found.images], tilts, atol=0.1)
    assert {round(image.z_rot_degrees, 5) for image in found.images} == {83.22321}
