"""The command that finds particles by a template: maps and models, what is refused, and a ready tomogram."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from emflow.cli.match_template import match_template
from emflow.cli.volume_stage import write_volume
from emflow.errors import SettingError
from emflow.io.index import FAILED, OK, VolumePickRow, VolumeRow, read_index, write_index
from emflow.io.templates import check_template_size, read_template
from emflow.io.volume_picks import read_volume_picks
from emflow.io.volumes import SLAB_SLICES
from emflow.simulation.tomograms.canvas import Canvas
from emflow.template_orientations import misorientation_degrees, rotations_of
from emflow.template_weighting import tomogram_transfer, wedge_geometry
from emflow.tomogram_classes import CLASSES, Label

PIXEL = 20.0
SHAPE = (32, 40, 44)
PLACES = np.array([[12.0, 14.0, 13.0], [18.0, 24.0, 30.0]])
ANGLES = np.array([[30.0, 40.0, 50.0], [-100.0, 150.0, 20.0]])


def _particle() -> np.ndarray:
    rng = np.random.default_rng(3)
    lobes = np.array([[0.0, 0, 70], [0, 0, -70], [60, 0, 20], [0, 75, -40], [-30, -50, 60]])
    sizes = [17.0, 13.0, 12.0, 14.0, 10.0]
    return np.concatenate(
        [lobe + s * rng.normal(size=(500, 3)) for lobe, s in zip(lobes, sizes, strict=True)]
    )


def _density(shape: tuple[int, int, int], pixel: float, centre: np.ndarray, turn: Rotation) -> np.ndarray:
    canvas = Canvas(shape, pixel)
    canvas.add_points(turn.apply(_particle())[:, ::-1] / pixel + centre, 1.0)
    return canvas.rendered()


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 5 A voxels about its middle."""
    path = tmp_path_factory.mktemp("template") / "particle.mrc"
    density = _density((64, 64, 64), 5.0, np.full(3, 32.0), Rotation.identity())
    with mrcfile.new(path, data=density) as mrc:
        mrc.voxel_size = 5.0
    return path


def _tomogram(folder: Path) -> Path:
    """Store a tomogram of two particles, dark, seen from -60 to 60 degrees, in noise."""
    volume = np.zeros(SHAPE, dtype=np.float32)
    for place, angle in zip(PLACES, ANGLES, strict=True):
        volume += _density(SHAPE, PIXEL, place, Rotation.from_euler("ZYZ", angle, degrees=True).inv())
    side = 64
    padded = np.zeros((side,) * 3, dtype=np.float32)
    padded[: SHAPE[0], : SHAPE[1], : SHAPE[2]] = volume
    spectrum = np.fft.rfftn(padded) * tomogram_transfer(side, PIXEL, wedge_geometry(-60, 60))
    seen = np.fft.irfftn(spectrum, s=padded.shape, axes=(0, 1, 2))[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    seen = seen / seen.std() + 1.2 * np.random.default_rng(1).normal(size=SHAPE)
    row = VolumeRow("TS_01", OK, "", "", "", *SHAPE, PIXEL, *SHAPE, PIXEL)
    slabs = (
        (first, seen[None, first : first + SLAB_SLICES].astype(np.float32), None)
        for first in range(0, SHAPE[0], SLAB_SLICES)
    )
    write_volume("import_tomogram", folder / "tomogram.tsv", row, slabs, channels=["full"])
    return folder / "tomogram.tsv"


def test_particles_of_a_ready_tomogram_are_found(ball: Path, tmp_path: Path) -> None:
    output = tmp_path / "matched.tsv"
    match_template(
        tomogram=_tomogram(tmp_path),
        output=output,
        template=ball,
        name="lopsided",
        diameter_angstrom=240.0,
        angular_step_degrees=30.0,
        device="cpu",
    )
    (row,) = read_index(output, VolumePickRow)
    assert (row.status, row.suggested_threshold) == (OK, 0.5)
    table = read_volume_picks(tmp_path / "matched.star")
    assert set(table["emflowClass"]) == {"lopsided"}
    merit = table["rlnAutopickFigureOfMerit"].to_numpy(float)
    assert (merit >= 0.5).sum() == 2
    assert merit.min() >= 0.4
    points = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy(float)[:2]
    true = ((PLACES - [side // 2 for side in SHAPE]) * PIXEL)[:, ::-1]
    apart = np.linalg.norm(true[:, None] - points[None], axis=2)
    assert apart.min(axis=1).max() < PIXEL
    angles = table[[f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]].to_numpy(float)
    found = rotations_of(angles[apart.argmin(axis=1)])
    assert misorientation_degrees(found, rotations_of(ANGLES)).max() < 30


def _segmentation(folder: Path, value: int) -> Path:
    """Store a segmentation that says one class about the first place, and background elsewhere."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    z, y, x = (int(part) for part in PLACES[0])
    labels[z - 3 : z + 4, y - 3 : y + 4, x - 3 : x + 4] = value
    row = VolumeRow("TS_01", OK, "", "", "", *SHAPE, PIXEL, *SHAPE, PIXEL)
    slabs = (
        (
            first,
            np.zeros((len(CLASSES), len(labels[first : first + SLAB_SLICES]), *SHAPE[1:]), dtype=np.uint8),
            labels[first : first + SLAB_SLICES],
        )
        for first in range(0, SHAPE[0], SLAB_SLICES)
    )
    write_volume(
        "segment",
        folder / "segmented.tsv",
        row,
        slabs,
        channels=[each.name for each in CLASSES],
        dtype="uint8",
        labels=CLASSES,
    )
    return folder / "segmented.tsv"


def _matched(tomogram: Path, ball: Path, segmented: Path, outside: list[str]) -> tuple[bool, int]:
    """Return whether the first place is found, in few rotations, and how many candidates there are."""
    output = tomogram.parent / "matched.tsv"
    match_template(
        tomogram=tomogram,
        output=output,
        template=ball,
        diameter_angstrom=240.0,
        angular_step_degrees=60.0,
        threshold=0.1,
        segmented=segmented,
        outside=outside,
        device="cpu",
    )
    table = read_volume_picks(output.with_suffix(".star"))
    points = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy(float)
    true = ((PLACES[0] - [side // 2 for side in SHAPE]) * PIXEL)[::-1]
    return bool((np.linalg.norm(true - points, axis=1) < 2 * PIXEL).any()), len(points)


def test_peaks_in_what_is_no_place_for_the_particle_are_left_out(ball: Path, tmp_path: Path) -> None:
    tomogram = _tomogram(tmp_path)
    gold = _segmentation(tmp_path, Label.GOLD)
    found, candidates = _matched(tomogram, ball, gold, ["membrane"])
    assert found
    assert _matched(tomogram, ball, gold, ["membrane", "gold"]) == (False, candidates - 1)
    told = "template_matching.outside: golde is no class of the segmentation; it has background, membrane"
    with pytest.raises(SettingError, match=told):
        _matched(tomogram, ball, gold, ["golde"])
    # What was not segmented says nothing.
    write_index(gold, [VolumeRow("TS_01", FAILED, "has voxels of 20 A")], VolumeRow)
    assert _matched(tomogram, ball, gold, ["gold"]) == (True, candidates)


def test_a_lost_tomogram_keeps_its_reason(ball: Path, tmp_path: Path) -> None:
    write_index(tmp_path / "tomogram.tsv", [VolumeRow("TS_01", FAILED, "is dark")], VolumeRow)
    (tmp_path / "matched.star").write_text("of an earlier run")
    output = tmp_path / "matched.tsv"
    match_template(tomogram=tmp_path / "tomogram.tsv", output=output, template=ball)
    assert read_index(output, VolumePickRow) == [VolumePickRow("TS_01", FAILED, "is dark")]
    assert not (tmp_path / "matched.star").exists()


def _map(path: Path, density: np.ndarray, pixel: float = 5.0) -> Path:
    with mrcfile.new(path, data=np.nan_to_num(density).astype(np.float32)) as mrc:
        mrc.voxel_size = pixel
        mrc.data[np.isnan(density)] = np.nan
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda cube: cube[:-4], "is no cube: 64 x 64 x 60 voxels"),
        (lambda cube: np.where(cube == cube.max(), np.nan, cube), "has voxels that are NaN or infinite"),
        (lambda cube: -cube, "is darker in its middle than outside"),
    ],
)
def test_a_map_that_is_no_template_is_refused(ball: Path, tmp_path: Path, change: object, told: str) -> None:
    with mrcfile.open(ball) as mrc:
        path = _map(tmp_path / "bad.mrc", change(mrc.data.copy()))  # type: ignore[operator]
    with pytest.raises(SettingError, match=rf"^template_matching\.template: .*bad\.mrc {told}"):
        read_template(path, diameter_angstrom=240.0)


def test_what_a_map_does_not_say_must_be_given(ball: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match=r"template_matching\.diameter_angstrom: should be given for a map"
    ):
        read_template(ball)
    with mrcfile.open(ball) as mrc:
        path = _map(tmp_path / "unscaled.mrc", mrc.data.copy(), pixel=0.0)
    with pytest.raises(
        SettingError, match=r"unscaled\.mrc states a pixel size of 0 A: set template_matching"
    ):
        read_template(path, diameter_angstrom=240.0)
    file = read_template(path, diameter_angstrom=240.0, template_pixel_size_angstrom=5.0)
    wanted = read_template(ball, diameter_angstrom=240.0)
    np.testing.assert_allclose(file.template(PIXEL).density, wanted.template(PIXEL).density)


def test_a_template_of_few_voxels_is_refused(ball: Path) -> None:
    file = read_template(ball, diameter_angstrom=240.0)
    check_template_size(file, 24.0)
    with pytest.raises(SettingError, match=r"particle\.mrc is 8\.0 voxels across at 30 A.*finer pixel size"):
        check_template_size(file, 30.0)


@pytest.mark.parametrize("name", ["cut.mrc", "text.pdb", "stack.txt"])
def test_a_file_of_another_kind_is_refused(ball: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(ball.read_bytes()[:5000] if name == "cut.mrc" else b"nothing of the kind\n")
    with pytest.raises(SettingError, match=rf"^template_matching\.template: .*{name}"):
        read_template(path, diameter_angstrom=240.0)
