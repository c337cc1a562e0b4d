"""Run torch-ctf-estimation on micrographs; `ctf.py` starts this in that package's own Python.

Reads a list of micrographs in JSON from standard input, and writes each estimate where the list says. One
defocus for the whole image. Searched are 0.3 to 5 micrometre, as by emflow; rings of 30 to 5 angstrom are
fitted, as in the package's documentation, but at pixels of 2 angstrom and in patches of 512 where 3 and 256
are its defaults: 5 angstrom lie beyond what pixels of 3 hold.
"""

import json
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import torch

# Of torchvision the package needs a Gaussian blur, which is plain torch; without this, torchvision of
# another build than torch's does not even load.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _NAME in ("nms", "qnms"):
    _LIBRARY.define(f"{_NAME}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torch_ctf_estimation import estimate_ctf  # noqa: E402
from torch_ctf_estimation.models import CTFFittingParams, OpticalParams  # noqa: E402

PIXEL_ANGSTROM = 2.0
PATCH = 512
BAND_ANGSTROM = (30.0, 5.0)


def estimate(wanted: dict) -> dict:
    with mrcfile.open(wanted["path"]) as mrc:
        image = torch.from_numpy(np.array(mrc.data, dtype=np.float32))
    optical = OpticalParams(
        pixel_spacing_angstroms=wanted["pixel_size_angstrom"],
        voltage_kev=wanted["voltage_kilovolt"],
        spherical_aberration_mm=wanted["spherical_aberration_millimetre"],
        amplitude_contrast_fraction=wanted["amplitude_contrast"],
        target_pixel_spacing_angstroms=PIXEL_ANGSTROM,
    )
    fitting = CTFFittingParams(
        defocus_grid_resolution=(1, 1, 1),
        frequency_fit_range_angstroms=BAND_ANGSTROM,
        defocus_range_microns=(0.3, 5.0),
        patch_sidelength=PATCH,
    )
    start = time.process_time()
    try:
        _, _, found = estimate_ctf(image, optical, fitting)
    except (ValueError, RuntimeError) as error:
        return {"failed": str(error), "cpu_seconds": time.process_time() - start}
    return {
        "defocus_u_angstrom": 1e4 * found.defocus_u,
        "defocus_v_angstrom": 1e4 * found.defocus_v,
        "defocus_angle_degrees": found.astigmatism_angle,
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    torch.set_num_threads(1)
    for wanted in json.load(sys.stdin):
        Path(wanted["out"]).write_text(json.dumps(estimate(wanted)))


if __name__ == "__main__":
    main()
