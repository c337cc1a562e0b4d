"""What RELION 5 itself makes of the STAR files that emflow writes.

    python benchmarks/relion5.py --relion /path/to/relion_tomo_subtomo [SESSION]

Debian has no RELION 5; build `relion_tomo_subtomo` of its branch ver5.0 (its target is `subtomo`).

Pairs of beads of known places and orientations, one bead in a particle's centre and a fainter one along its
z axis, are projected into a tilt series; emflow writes it for RELION, and `relion_tomo_subtomo` cuts the
particles out. In each box the bright bead must lie in the middle and the faint one above it. The same with
the tilts' sign turned must fail. Of a SESSION (of `emflow demo --tomo`, say) every particle must get its box.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from emflow.cli.series import with_geometry
from emflow.io.index import OK, TiltRow, VolumeRow
from emflow.io.relion5_check import check_relion5
from emflow.io.relion_tomograms import ExportedTomogram, write_relion_tomograms
from emflow.io.star import read_star
from emflow.io.volume_picks import volume_picks_table
from emflow.template_matching import refined_peaks
from emflow.tilt_geometry import TiltGeometry

PIXEL = 5.0
VOLUME = (160, 300, 360)  # z, y, x
IMAGE = (500, 460)  # every particle is in all of them
BOX = 48
SATELLITE = 10.0  # pixels from the centre, along the particle's z
SIGMA = 2.5  # of a bead, in pixels
FAINT = 0.5
# Divided by how many slices meet in each frequency: their mere sum is blurred across the tilt axis.
EXTRACTION = ("--no_ctf", "--no_ic", "--apply_orientations", "--div", "--SNR", "1000")
# Wanted of the bright bead, in pixels, and of the direction to the faint one, in degrees.
WITHIN_PIXELS, WITHIN_DEGREES = 0.5, 5.0


@dataclass(frozen=True)
class Beads:
    """Particles' centres (n, 3) in pixels from the specimen's centre, x y z, and their rotations."""

    centres: NDArray[np.float64]
    rotations: Rotation

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> "Beads":
        """Draw particles whose boxes lie in the volume, apart from each other."""
        half = np.array(VOLUME[::-1]) / 2 - BOX / 2
        centres: list[NDArray[np.float64]] = []
        while len(centres) < count:
            one = rng.uniform(-half, half)
            if all(np.linalg.norm(one - other) > BOX for other in centres):
                centres.append(one)
        return cls(np.array(centres), Rotation.random(count, random_state=rng))

    def images(self, geometry: TiltGeometry) -> NDArray[np.float32]:
        """Return the projections (n, h, w), particles dark."""
        satellites = self.centres + self.rotations.apply([0, 0, SATELLITE])
        y, x = np.mgrid[: IMAGE[0], : IMAGE[1]]
        images = np.zeros((len(geometry), *IMAGE), dtype=np.float32)
        for points, strength in ((self.centres, 1.0), (satellites, FAINT)):
            places = geometry.project(PIXEL * points) / PIXEL + [IMAGE[1] // 2, IMAGE[0] // 2]
            for image, shown in zip(images, places, strict=True):
                for column, row in shown:
                    distance = (y - row) ** 2 + (x - column) ** 2
                    image -= (strength * np.exp(-0.5 * distance / SIGMA**2)).astype(np.float32)
        return images


def exported(root: Path, beads: Beads, shown: TiltGeometry, said: TiltGeometry) -> Path:
    """Write the tilt series and what emflow says of it; return the folder of the STAR files."""
    stack = root / "TS_01.mrcs"
    with mrcfile.new(stack, beads.images(shown), overwrite=True) as mrc:
        mrc.voxel_size = PIXEL
    tilts = [
        TiltRow(
            f"tilt{n}",
            OK,
            path=str(stack),
            section=n,
            height=IMAGE[0],
            width=IMAGE[1],
            pixel_size_angstrom=PIXEL,
            voltage_kilovolt=300.0,
            spherical_aberration_millimetre=2.7,
            amplitude_contrast=0.1,
            hand=-1,
            nominal_tilt_degrees=float(said.y_tilt_degrees[n]),
            nominal_axis_degrees=float(said.z_rot_degrees[n]),
            pre_exposure_electrons_per_square_angstrom=0.0,
            exposure_electrons_per_square_angstrom=3.0,
            image_path=f"{n + 1:06d}@{stack}",
            defocus_u_angstrom=30_000.0,
            defocus_v_angstrom=30_000.0,
            defocus_angle_degrees=0.0,
            phase_shift_degrees=0.0,
            ctf_figure_of_merit=1.0,
        )
        for n in range(len(said))
    ]
    tilts = with_geometry(tilts, said, "imported")
    depth, height, width = VOLUME
    volume = VolumeRow(
        "TS_01",
        OK,
        depth=depth,
        height=height,
        width=width,
        pixel_size_angstrom=PIXEL,
        unbinned_depth=depth,
        unbinned_height=height,
        unbinned_width=width,
        unbinned_pixel_size_angstrom=PIXEL,
    )
    # RELION's angles turn the specimen to the particle.
    angles = beads.rotations.inv().as_euler("ZYZ", degrees=True)
    count = len(beads.centres)
    picks = volume_picks_table("TS_01", PIXEL * beads.centres, angles, ["bead"] * count, np.ones(count))
    folder = root / "results" / "relion"
    write_relion_tomograms(folder, [ExportedTomogram(volume, tilts, picks)], root)
    if problems := check_relion5(folder):
        sys.exit("\n".join(problems))
    return folder


def extract(relion: Path, root: Path, stars: Path, output: str, options: Sequence[str]) -> Path:
    """Run RELION 5 in ``root``; return the folder of its sub-tomograms."""
    command = [str(relion), "--i", str((stars / "optimisation_set.star").relative_to(root)), "--o", output]
    command += ["--b", str(BOX), "--crop", str(BOX), "--bin", "1", "--j", "2", *options]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return root / output / "Subtomograms"


def bead_errors(folder: Path, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far bright beads are from their boxes' centres, pixels, and faint ones from z, degrees."""
    pixels, degrees = [], []
    for n in range(count):
        with mrcfile.open(folder / "TS_01" / f"{n + 1}_div.mrc", permissive=True) as mrc:
            box = ndimage.gaussian_filter(-mrc.data.astype(np.float32), 1.0)
        bright = peak_near(box, np.full(3, BOX // 2), BOX)
        pixels.append(float(np.linalg.norm(bright - BOX // 2)))
        z, y, x = np.indices(box.shape) - bright[:, None, None, None]
        shell = np.abs(np.sqrt(x * x + y * y + z * z) - SATELLITE) < 2
        faint = np.unravel_index(np.where(shell, box, -np.inf).argmax(), box.shape)
        along = peak_near(box, np.array(faint), 3) - bright
        degrees.append(float(np.degrees(np.arccos(along[0] / np.linalg.norm(along)))))
    return np.array(pixels), np.array(degrees)


def peak_near(box: NDArray[np.float32], at: NDArray[np.integer], within: int) -> NDArray[np.float64]:
    """Return the place (z, y, x), to a fraction of a voxel, of the highest voxel near another."""
    low = np.maximum(at - within, 1)
    part = box[tuple(slice(a, b) for a, b in zip(low, np.minimum(at + within + 1, BOX - 1), strict=True))]
    top = low + np.array(np.unravel_index(part.argmax(), part.shape))
    return refined_peaks(box, top[None])[0]


def check_beads(relion: Path, count: int) -> bool:
    """Print how right RELION's boxes are, and how wrong with the tilts' sign turned."""
    rng = np.random.default_rng(5)
    beads = Beads.draw(rng, count)
    # All around: a bead is as sharp along the beam as across.
    tilts = np.arange(-88.0, 91.0, 3.0)
    shown = TiltGeometry(
        np.full(len(tilts), 1.5),
        tilts,
        85.0 + rng.uniform(-0.5, 0.5, len(tilts)),
        *rng.uniform(-8, 8, (2, len(tilts))) * PIXEL,
    )
    turned = TiltGeometry(
        shown.x_tilt_degrees, -tilts, shown.z_rot_degrees, shown.x_shift_angstrom, shown.y_shift_angstrom
    )
    right = []
    for name, said in (("as written", shown), ("tilts turned", turned)):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            stars = exported(root, beads, shown, said)
            boxes = extract(relion, root, stars, "Extract/", EXTRACTION)
            pixels, degrees = bead_errors(boxes, count)
        hits = (pixels <= WITHIN_PIXELS) & (degrees <= WITHIN_DEGREES)
        right.append(int(hits.sum()))
        print(
            f"{name}: {hits.sum()} of {count} right (within {WITHIN_PIXELS} pixels and {WITHIN_DEGREES:.0f} "
            f"degrees); off by median {np.median(pixels):.2f}, at most {pixels.max():.2f} pixels; "
            f"{np.median(degrees):.1f}, at most {degrees.max():.1f} degrees"
        )
    return right == [count, 0]


def check_session(relion: Path, session: Path) -> bool:
    """Print whether RELION cuts out every particle of a session's export."""
    (stars,) = (
        path.parent for path in session.absolute().glob("results/tomo/*/relion/optimisation_set.star")
    )
    wanted = len(read_star(stars / "particles.star")["particles"])
    with tempfile.TemporaryDirectory(dir=session) as folder:
        output = f"{Path(folder).name}/"
        boxes = extract(relion, session.absolute(), stars, output, ("--stack2d",))
        table = read_star(boxes.parent / "particles.star")["particles"]
        found = len(list(boxes.glob("*/*_stack2d.mrcs")))
        frames = [sum(map(int, str(one).strip("[]").split(","))) for one in table["rlnTomoVisibleFrames"]]
    print(f"{session}: {found} stacks of {wanted} particles, {min(frames)} to {max(frames)} tilts in each")
    return found == wanted == len(table)


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("session", nargs="*", type=Path)
    parser.add_argument("--relion", type=Path, required=True, help="RELION 5's relion_tomo_subtomo")
    parser.add_argument("--particles", type=int, default=12)
    arguments = parser.parse_args()
    done = [check_beads(arguments.relion.absolute(), arguments.particles)]
    done += [check_session(arguments.relion.absolute(), one) for one in arguments.session]
    sys.exit(0 if all(done) else 1)


if __name__ == "__main__":
    main()
