"""RELION itself takes the export: counted and compared pixel by pixel, never judged by its return code."""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from relion_session import Entry, export, write_batch
from scipy.ndimage import center_of_mass, rotate

from emflow.io.ctf_pictures import ctf_picture_path, write_ctf_picture
from emflow.io.index import MicrographRow, read_index, write_index
from emflow.io.relion_project import check_star_paths
from emflow.io.star import read_star
from emflow.io.tiff import read_tiff
from emflow.metadata import OpticsGroup

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(
        not shutil.which("relion_preprocess"), reason="RELION is not installed (relion_preprocess)"
    ),
]

BOX = 60  # of the default diameter of these sessions, 60 A at 1.5 A
COARSE = OpticsGroup("coarse", 2.0, 200.0, 1.4, 0.07)


def relion(project: Path, command: str) -> str:
    """Run a RELION program in the project's folder and return what it said."""
    ran = subprocess.run(
        command.split(), cwd=project, capture_output=True, text=True, timeout=300, check=False
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said[-2000:]
    return said


def extract(
    project: Path, *, micrographs: str = "micrographs_ctf.star", source: str = "", out: str = "Extract"
) -> list[int]:
    """Extract the picks, by coordinate files unless told otherwise, and return each micrograph's count."""
    source = source or "--coord_dir AutoPick/ --coord_suffix _autopick.star"
    command = (
        f"relion_preprocess --i {micrographs} {source} --part_star {out}/particles.star --part_dir {out}/"
    )
    relion(project, f"{command} --extract --extract_size {BOX}")
    particles = read_star(project / out / "particles.star")["particles"]
    return particles.groupby("rlnMicrographName").size().tolist()


def stack(project: Path, name: str, out: str = "Extract") -> NDArray[np.float32]:
    with mrcfile.open(project / out / Path(name).with_suffix(".mrcs"), permissive=True) as mrc:
        return np.array(mrc.data).reshape(-1, BOX, BOX)


def beads(
    shape: tuple[int, int], number: int, seed: int
) -> tuple[NDArray[np.float32], list[tuple[float, float]]]:
    """Draw dark beads on noise; their centres are (x, y), no two of them closer than two radii."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    image = rng.normal(0, 0.3, shape)
    centres: list[tuple[float, float]] = []
    while len(centres) < number:
        x, y = rng.uniform(35, shape[1] - 35), rng.uniform(35, shape[0] - 35)
        if all(np.hypot(x - other_x, y - other_y) > 60 for other_x, other_y in centres):
            centres.append((x, y))
            image -= 10 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 5.0**2))
    return image.astype(np.float32), centres


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Three micrographs of two sizes and two optics groups, one without picks, outside the project."""
    folder = tmp_path_factory.mktemp("session")
    first, centres = beads((400, 500), 15, 1)
    second, others = beads((500, 380), 9, 2)
    entries = [
        Entry("grid/a.mrc", first, centres),
        # A name as a microscope's user may give it.
        Entry("job002/b c@1.mrc", second, others, optics=COARSE),
        Entry("empty.mrc", beads((400, 500), 1, 3)[0]),
    ]
    return export(folder, [write_batch(folder / "results" / "0000", entries)]), entries


def test_as_many_particles_as_were_written_each_centred_on_its_bead(session):
    project, entries = session
    assert extract(project) == [15, 9]
    listed = read_star(project / "autopick.star")["coordinate_files"]
    for (name, coordinates), entry in zip(listed.to_numpy().tolist(), entries, strict=False):
        images = stack(project, name)
        picks = read_star(project / coordinates)[""]
        whole = picks[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
        assert len(images) == len(whole) == len(entry.xy)
        for image, (x, y), truth in zip(images, whole, entry.xy, strict=True):
            # Every pixel is the one that the convention says: the pick is pixel BOX/2 of the box.
            cut = entry.image[y - BOX // 2 : y + BOX // 2, x - BOX // 2 : x + BOX // 2]
            np.testing.assert_array_equal(image, cut)
            row, column = center_of_mass(np.clip(-image[10:-10, 10:-10], 2.0, None) - 2.0)
            offset = np.hypot(column + 10 - BOX / 2, row + 10 - BOX / 2)
            assert offset < 1.0, f"bead {offset:.2f} pixels off the centre"
            centre_of_bead = np.array([column, row]) + 10 - BOX / 2 + (x, y)
            np.testing.assert_allclose(centre_of_bead, truth, atol=0.3)
    # What RELION made of it passes the check that its own input passed.
    assert check_star_paths([project, project / "Extract" / "particles.star"]) == []


def test_reextraction_takes_particles_star(session):
    project, _ = session
    extract(project)
    assert extract(project, source="--reextract_data_star particles.star", out="Again") == [15, 9]
    for name in read_star(project / "autopick.star")["coordinate_files"]["rlnMicrographName"]:
        np.testing.assert_array_equal(stack(project, name, "Again"), stack(project, name))
    assert check_star_paths([project / "Again" / "particles.star"]) == []


def test_without_ctf(tmp_path):
    image, centres = beads((400, 500), 12, 5)
    project = export(
        tmp_path, [write_batch(tmp_path / "results/0000", [Entry("a.mrc", image, centres, ctf=None)])]
    )
    assert extract(project, micrographs="micrographs.star") == [12]
    assert check_star_paths([project / "Extract" / "particles.star"]) == []


def test_the_boxes_that_are_left_out_are_those_that_relion_fills_up(tmp_path):
    image = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    half = BOX // 2
    fitting = [(half, half), (400 - half, 300 - half)]
    overhanging = [(half - 1, half), (half, half - 1), (401 - half, half), (half, 301 - half)]
    entries = [Entry("a.mrc", image, [*fitting, *overhanging])]
    project = export(tmp_path, [write_batch(tmp_path / "results/0000", entries)])
    assert extract(project) == [2]
    for whole, (x, y) in zip(stack(project, "Micrographs/a.mrc"), fitting, strict=True):
        np.testing.assert_array_equal(whole, image[y - half : y + half, x - half : x + half])
    # The others, added by hand: RELION repeats the pixels of the edge, and check-star refuses each.
    path = project / "AutoPick/Micrographs/a_autopick.star"
    text = path.read_text().rstrip("\n")
    path.write_text("\n".join([text, *(f"{x} {y} 0.5 0 0.0" for x, y in overhanging), "", ""]))
    assert extract(project, out="Past") == [6]
    filled = stack(project, "Micrographs/a.mrc", "Past")[2:]
    np.testing.assert_array_equal(filled[0][:, 0], filled[0][:, 1])
    np.testing.assert_array_equal(filled[1][0], filled[1][1])
    np.testing.assert_array_equal(filled[2][:, -1], filled[2][:, -2])
    np.testing.assert_array_equal(filled[3][-1], filled[3][-2])
    assert len(check_star_paths([path])) == len(overhanging)


def test_tiff_and_mrc_extract_the_same_bead(tmp_path):
    image, centres = beads((400, 500), 8, 7)
    # A program that keeps RELION's and IMOD's convention stores the TIFF's rows from the bottom.
    path = tmp_path / "data" / "outside.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, image[::-1])
    read = np.asarray(read_tiff(path), dtype=np.float32)
    batch = write_batch(
        tmp_path / "results/0000", [Entry("a.mrc", image, centres), Entry("b.tif", read, centres)]
    )
    project = export(tmp_path, [batch])
    assert extract(project) == [8, 8]
    from_mrc = stack(project, "Micrographs/a.mrc")
    np.testing.assert_array_equal(stack(project, "Micrographs/b.tif.mrc"), from_mrc)
    # And RELION itself, reading the TIFF, finds the same bead at these coordinates.
    (project / "Micrographs/b.tif").symlink_to(path)
    micrographs = project / "micrographs_ctf.star"
    micrographs.write_text(micrographs.read_text().replace("b.tif.mrc", "b.tif"))
    picks = (project / "AutoPick/Micrographs/b.tif_autopick.star").read_bytes()
    (project / "AutoPick/Micrographs/b_autopick.star").write_bytes(picks)
    assert extract(project, out="Direct") == [8, 8]
    np.testing.assert_array_equal(stack(project, "Micrographs/b.tif", "Direct"), from_mrc)


def test_the_picture_of_a_ctf_is_read_by_the_name_in_rlnctfimage(tmp_path):
    image, centres = beads((400, 500), 8, 9)
    picks = write_batch(tmp_path / "results/0000", [Entry("b c.mrc", image, centres, ctf=None)])
    (row,) = read_index(picks.parent / "micrographs.tsv", MicrographRow)
    fitted = replace(row, defocus_u_angstrom=2e4, defocus_v_angstrom=1.9e4, defocus_angle_degrees=5.0)
    fitted = replace(fitted, ctf_max_resolution_angstrom=4.0, ctf_figure_of_merit=0.9)
    write_index(picks.parent / "ctf.tsv", [fitted], MicrographRow)
    rings = np.random.default_rng(2).random((33, 33), dtype=np.float32)
    write_ctf_picture(ctf_picture_path(picks.parent, row.name), rings, 0.002)
    project = export(tmp_path, [picks], estimated_ctf=True)
    (name,) = read_star(project / "micrographs_ctf.star")["micrographs"]["rlnCtfImage"]
    assert name.endswith(".ctf:mrc")
    relion(project, f"relion_image_handler --i {name} --o copy.mrc")
    with mrcfile.open(project / "copy.mrc", permissive=True) as mrc:
        # Signed bytes, row for row.
        np.testing.assert_allclose(np.array(mrc.data), rings * 254 - 127, atol=0.51)
    assert extract(project) == [8]


@pytest.mark.slow
def test_two_shapes_are_classified_apart(tmp_path):
    rng = np.random.default_rng(11)
    rows, columns = np.indices((49, 49)) - 24.0
    radius = np.hypot(rows, columns)
    ring = np.exp(-((radius - 11) ** 2) / (2 * 2.5**2))
    rod = np.exp(-(rows**2) / (2 * 3.0**2)) / (1 + np.exp(2 * (np.abs(columns) - 15)))
    entries, truth = [], {}
    for number in range(4):
        image = rng.normal(0, 1.0, (480, 480))
        centres = [
            (60.0 + 72 * i + rng.uniform(-3, 3), 60.0 + 72 * j + rng.uniform(-3, 3))
            for i in range(6)
            for j in range(6)
        ]
        for place, (x, y) in enumerate(centres):
            shape = ring if (place + number) % 2 else rotate(rod, rng.uniform(0, 360), reshape=False, order=1)
            column, row = round(x), round(y)
            image[row - 24 : row + 25, column - 24 : column + 25] -= 1.2 * shape
            truth[(f"Micrographs/m{number}.mrc", column, row)] = (place + number) % 2
        xy = [(float(round(x)), float(round(y))) for x, y in centres]
        entries.append(Entry(f"m{number}.mrc", image.astype(np.float32), xy, ctf=None))
    project = export(tmp_path, [write_batch(tmp_path / "results/0000", entries)], diameter_angstrom=48.0)
    command = "relion_preprocess --i micrographs.star --coord_dir AutoPick/ --coord_suffix _autopick.star"
    command += " --part_star Extract/particles.star --part_dir Extract/ --extract --extract_size 48"
    relion(project, f"{command} --norm --bg_radius 20 --white_dust -1 --black_dust -1 --invert_contrast")
    (project / "Class2D").mkdir()
    command = (
        "relion_refine --i Extract/particles.star --o Class2D/run --K 2 --iter 12 --particle_diameter 54"
    )
    command += " --tau2_fudge 2 --psi_step 12 --offset_range 3 --offset_step 1 --norm --scale --zero_mask"
    command += " --flatten_solvent --oversampling 1 --pool 30 --pad 2 --dont_combine_weights_via_disc"
    relion(project, f"{command} --preread_images --j 2 --random_seed 1")
    found = read_star(project / "Class2D" / "run_it012_data.star")["particles"]
    assert len(found) == len(truth) == 144
    pairs = Counter(
        (
            row.rlnClassNumber,
            truth[(row.rlnMicrographName, round(row.rlnCoordinateX), round(row.rlnCoordinateY))],
        )
        for row in found.itertuples()
    )
    classes = {number for number, _ in pairs}
    assert len(classes) == 2, pairs
    # Half of them would be right by chance.
    purity = sum(max(pairs[(number, shape)] for shape in (0, 1)) for number in classes) / len(found)
    assert purity > 0.95, pairs


def test_relion_knows_the_labels_that_are_checked():
    """The table of labels agrees with RELION's own, as far as this version of it goes."""
    from emflow.relion_labels import FLAG, INTEGER, KIND, NUMBER, TEXT

    said = subprocess.run(
        ["relion_refine", "--print_metadata_labels"], capture_output=True, text=True, check=False
    )
    types = dict(re.findall(r"(rln\w+) \((\w+)", said.stdout))
    assert len(types) > 300
    kinds = {"double": NUMBER, "int": INTEGER, "bool": FLAG, "string": TEXT, "vector": TEXT}
    wrong = {
        label: types[label] for label, kind in KIND.items() if label in types and kinds[types[label]] != kind
    }
    assert wrong == {}
    # Those that RELION 4 and 5 added are few, and known by name.
    added = {label for label in KIND if label not in types}
    assert added <= {
        "rlnCtfIceRingDensity",
        "rlnMicrographCoordinates",
        "rlnMicrographIceThickness",
        "rlnMicrographNameEven",
        "rlnMicrographNameOdd",
        "rlnParticleSelectionType",
    }
