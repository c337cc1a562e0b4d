"""The angle of astigmatism is RELION's: estimated on images whose CTF `relion_project` applied."""

import math
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch

from emflow.ctf_estimation import estimate_ctf
from emflow.io.star import write_star

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(not shutil.which("relion_project"), reason="RELION is not installed (relion_project)"),
]

BOX, PIXEL, COUNT = 192, 1.5, 16
OPTICS = {"voltage_kilovolt": 300.0, "spherical_aberration_millimetre": 2.7, "amplitude_contrast": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a map of white matter inside a ball: all spatial frequencies, no symmetry."""
    folder = tmp_path_factory.mktemp("relion_ctf")
    rng = np.random.default_rng(0)
    line = (np.arange(BOX) - BOX / 2) ** 2
    radius = np.sqrt(line[:, None, None] + line[:, None] + line)
    ball = 1 / (1 + np.exp((radius - 0.36 * BOX) / 3))
    with mrcfile.new(folder / "map.mrc") as mrc:
        mrc.set_data((rng.standard_normal((BOX, BOX, BOX)) * ball).astype(np.float32))
        mrc.voxel_size = PIXEL
    return folder


@pytest.mark.parametrize(
    ("defocus_u", "defocus_v", "angle", "phase_shift"),
    [
        (16000.0, 13500.0, 25.0, 0.0),
        (16000.0, 13500.0, -60.0, 0.0),
        (12000.0, 11000.0, 85.0, 0.0),
        (14000.0, 12500.0, 130.0, 70.0),
    ],
)
def test_astigmatism_of_relions_projections_is_recovered(
    folder: Path, defocus_u: float, defocus_v: float, angle: float, phase_shift: float
) -> None:
    rng = np.random.default_rng(1)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["one"],
            "rlnOpticsGroup": [1],
            "rlnImagePixelSize": [PIXEL],
            "rlnVoltage": [OPTICS["voltage_kilovolt"]],
            "rlnSphericalAberration": [OPTICS["spherical_aberration_millimetre"]],
            "rlnAmplitudeContrast": [OPTICS["amplitude_contrast"]],
            "rlnImageSize": [BOX],
            "rlnImageDimensionality": [2],
        }
    )
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{number + 1:06d}@none.mrcs" for number in range(COUNT)],
            "rlnAngleRot": rng.uniform(0, 360, COUNT),
            "rlnAngleTilt": [math.degrees(math.acos(value)) for value in rng.uniform(-1, 1, COUNT)],
            "rlnAnglePsi": rng.uniform(0, 360, COUNT),
            "rlnOriginXAngst": [0.0] * COUNT,
            "rlnOriginYAngst": [0.0] * COUNT,
            "rlnDefocusU": [defocus_u] * COUNT,
            "rlnDefocusV": [defocus_v] * COUNT,
            "rlnDefocusAngle": [angle] * COUNT,
            "rlnPhaseShift": [phase_shift] * COUNT,
            "rlnOpticsGroup": [1] * COUNT,
        }
    )
    write_star(folder / "particles.star", {"optics": optics, "particles": particles})
    command = f"relion_project --i map.mrc --o projected --ang particles.star --ctf --angpix {PIXEL} --pad 1"
    (folder / "projected.mrcs").unlink(missing_ok=True)
    ran = subprocess.run(
        command.split(), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert (folder / "projected.mrcs").is_file(), ran.stdout + ran.stderr
    with mrcfile.open(folder / "projected.mrcs", permissive=True) as mrc:
        images = np.array(mrc.data)
    assert images.shape == (COUNT, BOX, BOX)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ctf = estimate_ctf(
        images,
        pixel_size_angstrom=PIXEL,
        phase_shift_range_degrees=(0, 180) if phase_shift else None,
        **OPTICS,
    ).ctf
    torch.set_num_threads(threads)
    # A free phase shift shares its error with the defocus.
    tolerance = 200 if phase_shift else 60
    assert ctf.defocus_u_angstrom == pytest.approx(defocus_u, abs=tolerance)
    assert ctf.defocus_v_angstrom == pytest.approx(defocus_v, abs=tolerance)
    # A mirrored or exchanged axis would miss each of these angles by 10 degrees or more.
    assert abs((ctf.defocus_angle_degrees - angle + 90) % 180 - 90) < 2
    assert -90 < ctf.defocus_angle_degrees <= 90
    assert ctf.phase_shift_degrees == pytest.approx(phase_shift, abs=8)
    assert ctf.figure_of_merit > 0.95
