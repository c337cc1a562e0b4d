"""CTF estimation against known truth, beside other programs on the same MRC files.

    python benchmarks/ctf.py --work FOLDER [--count 12] [--scenes 24] [--torch-ctf PYTHON] [--aspire PYTHON]

Two simulations that share nothing but the formula of the CTF: white matter under an envelope in coloured
noise, made here, and whole scenes of `emflow.simulation` (particles, ice, contaminants, detector). With
--timing large images are timed and, with the folder of outside data (EMFLOW_SHARED, else ../shared), the real
micrographs there are shown.

The peers have environments of their own, and are named with the Python of these:

    python3 -m venv torch_ctf && torch_ctf/bin/pip install torch-ctf-estimation mrcfile
    python3 -m venv aspire && aspire/bin/pip install aspire

ctf_torch.py and ctf_aspire.py run inside and say with what settings. All run on one thread; the seconds are
those of the estimate alone. What peers gave is kept in --work and taken from there in a second run.
"""

import argparse
import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import torch
from ctf_images import KINDS, SCENES, Case, cases, white_matter
from numpy.typing import NDArray
from programs import ONE_THREAD

from emflow.ctf_estimation import CtfEstimate, estimate_ctf, fit_power_spectra, power_spectrum
from emflow.metadata import Ctf, OpticsGroup

_HERE = Path(__file__).parent
_ASTIGMATIC_ANGSTROM = 500.0
_SURE_DEGREES = 5.0


@dataclass(frozen=True)
class Estimate:
    """What a program says of a micrograph; ``ctf`` None where it failed, errors None where it states none."""

    ctf: Ctf | None
    cpu_seconds: float
    defocus_error_angstrom: float | None = None
    angle_error_degrees: float | None = None


def emflow(micrographs: Sequence[Case]) -> list[Estimate]:
    found = []
    for case in micrographs:
        image = case.image()
        start = time.process_time()
        fit = _estimated(image, case.optics)
        spent = time.process_time() - start
        found.append(Estimate(fit.ctf, spent, fit.defocus_error_angstrom, fit.angle_error_degrees))
    return found


def _estimated(image: NDArray[np.float32], optics: OpticsGroup) -> CtfEstimate:
    return estimate_ctf(
        image,
        pixel_size_angstrom=optics.pixel_size_angstrom,
        voltage_kilovolt=optics.voltage_kilovolt,
        spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
        amplitude_contrast=optics.amplitude_contrast,
    )


def peer(script: str, python: str) -> Callable[[Sequence[Case]], list[Estimate]]:
    """Return a program that runs in another Python; it writes JSON beside each micrograph, which is kept."""

    def estimates(micrographs: Sequence[Case]) -> list[Estimate]:
        kept = [case.path.with_suffix(f".{script}.json") for case in micrographs]
        wanted = [
            {
                "path": str(case.path.resolve()),
                "out": str(out.resolve()),
                "pixel_size_angstrom": case.optics.pixel_size_angstrom,
                "voltage_kilovolt": case.optics.voltage_kilovolt,
                "spherical_aberration_millimetre": case.optics.spherical_aberration_millimetre,
                "amplitude_contrast": case.optics.amplitude_contrast,
            }
            for case, out in zip(micrographs, kept, strict=True)
            if not out.is_file()
        ]
        if wanted:
            subprocess.run(
                [python, str(_HERE / f"{script}.py")],
                input=json.dumps(wanted),
                text=True,
                check=True,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": ""},
            )
        return [_read(path) for path in kept]

    return estimates


def _read(path: Path) -> Estimate:
    said = json.loads(path.read_text())
    if "failed" in said:
        return Estimate(None, said["cpu_seconds"])
    ctf = Ctf(said["defocus_u_angstrom"], said["defocus_v_angstrom"], said["defocus_angle_degrees"])
    return Estimate(ctf, said["cpu_seconds"])


def score(kind: str, program: str, micrographs: Sequence[Case], found: Sequence[Estimate]) -> None:
    """Print a row of the table."""
    off, angles, believed_angles, sure_angles, merits, right, resolutions = [], [], [], [], [], [], []
    within: tuple[list[bool], list[bool]] = ([], [])
    for case, estimate in zip(micrographs, found, strict=True):
        ctf, truth = estimate.ctf, case.ctf
        merit = ctf.figure_of_merit if ctf else None
        merits.append(math.nan if merit is None else merit)
        resolutions.append((ctf and ctf.max_resolution_angstrom) or math.nan)
        if truth is None:
            right.append(False)
            continue
        mean = (truth.defocus_u_angstrom + truth.defocus_v_angstrom) / 2
        if ctf is None:
            off.append(math.inf)
            right.append(False)
            continue
        off.append(abs((ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2 - mean))
        right.append(off[-1] < max(300, 0.05 * mean))
        believed = merit is not None and merit > 0.9
        if believed and right[-1] and estimate.defocus_error_angstrom is not None:
            within[0].append(off[-1] < estimate.defocus_error_angstrom)
        if truth.defocus_u_angstrom - truth.defocus_v_angstrom > _ASTIGMATIC_ANGSTROM:
            turned = abs((ctf.defocus_angle_degrees - truth.defocus_angle_degrees + 90) % 180 - 90)
            angles.append(turned)
            if believed and estimate.angle_error_degrees is not None:
                believed_angles.append(turned)
                within[1].append(turned < estimate.angle_error_degrees)
                if estimate.angle_error_degrees < _SURE_DEGREES:
                    sure_angles.append(turned)
    good, trusted = np.array(right), np.array(merits) >= 0.5
    judges = not np.isnan(merits).all()

    def percent(which: NDArray[np.bool_]) -> str:
        return f"{100 * np.mean(which):.1f}"

    def of_angles(values: list[float]) -> str:
        if not values:
            return "-"
        return f"{len(values)}, {np.median(values):.1f}, {np.percentile(values, 90):.1f}"

    columns = [
        kind,
        program,
        str(len(found)),
        f"{np.median(off):.0f}" if off else "-",
        of_angles(angles),
        of_angles(believed_angles),
        of_angles(sure_angles),
        ", ".join(f"{100 * np.mean(part):.0f} of {len(part)}" for part in within if part) or "-",
        percent(~good) if off else "-",
        percent(~good & trusted) if judges else "-",
        percent(good & ~trusted) if judges else "-",
        f"{np.nanmedian(resolutions):.1f}" if judges else "-",
        f"{np.median([estimate.cpu_seconds for estimate in found]):.2f}",
    ]
    print("|", " | ".join(columns), "|", flush=True)


def timing() -> None:
    rng = np.random.default_rng(1)
    for pixel in (0.6, 0.85, 1.7):
        image, _, _ = white_matter(rng, 4096, defocus=(10000, 20000), signal=(0.2, 0.3))
        start, wall = time.process_time(), time.perf_counter()
        spectrum = power_spectrum(image, pixel_size_angstrom=pixel)
        middle = time.process_time()
        fit_power_spectra(
            [spectrum],
            pixel_size_angstrom=pixel,
            voltage_kilovolt=300.0,
            spherical_aberration_millimetre=2.7,
            amplitude_contrast=0.07,
        )
        print(
            f"4096 x 4096 at {pixel} A: {middle - start:.2f} + {time.process_time() - middle:.2f} "
            f"CPU-seconds, {time.perf_counter() - wall:.2f} s"
        )


def real(shared: Path) -> None:
    folder = shared / "data" / "1_spa_micrographs"
    path = folder / "mrcfile" / "fei-extended.mrc.bz2"
    if path.is_file():
        with mrcfile.open(path, permissive=True) as mrc:
            image = np.array(mrc.data, dtype=np.float32)
        _show("fei-extended (nominal -0.8 um)", image, 0.8538, 2.7)
    for path in sorted(folder.glob("bgal_empiar10017/*.jpg")):
        from PIL import Image

        # Smoothed and compressed: no rings are left beyond 20 angstrom, and the merit must say so.
        _show(path.name, np.asarray(Image.open(path).convert("F")), 1.77, 2.0)


def _show(name: str, image: NDArray[np.float32], pixel: float, cs: float) -> None:
    ctf = _estimated(image, OpticsGroup("real", pixel, 300.0, cs, 0.1)).ctf
    print(
        f"{name}: U {ctf.defocus_u_angstrom:.0f} V {ctf.defocus_v_angstrom:.0f} "
        f"angle {ctf.defocus_angle_degrees:.0f}, to {ctf.max_resolution_angstrom:.1f} A, "
        f"merit {ctf.figure_of_merit:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of micrographs and peers' estimates")
    parser.add_argument("--count", type=int, default=12, help="micrographs of each kind made here")
    parser.add_argument("--scenes", type=int, default=12, help="scenes of emflow.simulation")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--side", type=int, default=2048, help="of all of them, in pixels")
    parser.add_argument("--torch-ctf", help="the Python that has torch-ctf-estimation")
    parser.add_argument("--aspire", help="the Python that has aspire")
    parser.add_argument("--timing", action="store_true", help="also large images, and real ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    programs = {"emflow": emflow}
    if options.torch_ctf:
        programs["torch-ctf-estimation"] = peer("ctf_torch", options.torch_ctf)
    if options.aspire:
        programs["ASPIRE"] = peer("ctf_aspire", options.aspire)
    print(
        "| micrographs | program | count | error, A | angles | believed angles | sure angles | within, % "
        "| wrong, % | believed, % | doubted, % | to, A | CPU s |"
    )
    print("|---" * 13 + "|")
    for kind in (*KINDS, SCENES):
        count = options.scenes if kind == SCENES else options.count
        micrographs = cases(options.work, kind, count=count, side=options.side, seed=options.seed)
        for name, run in programs.items() if count else ():
            score(kind, name, micrographs, run(micrographs))
    print(
        "\nerror: median of the mean defocus; angles: number, median and 90 % of those with astigmatism > "
        "500 A, believed ones those with a merit > 0.9, sure ones of these those with a stated error < 5 "
        "degrees; within: of merit > 0.9, right defocus and angles off by less than the stated error; wrong: "
        "off by more than 5 % and 300 A, or failed; believed: wrong with merit >= 0.5; doubted: right with "
        "less; to, CPU s: medians"
    )
    if options.timing:
        timing()
        beside = Path(__file__).resolve().parents[2] / "shared"
        real(Path(os.environ.get("EMFLOW_SHARED", beside)))


if __name__ == "__main__":
    main()
