"""Run ASPIRE's CTF estimation on micrographs; `ctf.py` starts this in that package's own Python.

Reads a list of micrographs in JSON from standard input, and writes each estimate where the list says. The
settings are those of ``aspire estimate-ctf``: blocks of 512 pixels, two tapers, rings of 30 to 5 angstrom.
It always searches 0.5 to 10 micrometre. Its axes are swapped, as images with strong rings show: of 30 and
-65 degrees it makes 60 and -25.
"""

import json
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

from aspire.ctf import estimate_ctf


def estimate(wanted: dict) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(wanted["path"], folder / "micrograph.mrc")
        start = time.process_time()
        try:
            found = estimate_ctf(
                folder,
                pixel_size=wanted["pixel_size_angstrom"],
                cs=wanted["spherical_aberration_millimetre"],
                amplitude_contrast=wanted["amplitude_contrast"],
                voltage=wanted["voltage_kilovolt"],
                num_tapers=2,
                psd_size=512,
                g_min=30,
                g_max=5,
                output_dir=str(folder / "results"),
            )["micrograph.mrc"]
        except (ValueError, RuntimeError, IndexError) as error:
            return {"failed": str(error), "cpu_seconds": time.process_time() - start}
    return {
        "defocus_u_angstrom": float(found["defocus_u"]),
        "defocus_v_angstrom": float(found["defocus_v"]),
        "defocus_angle_degrees": 90 - math.degrees(found["defocus_ang"]),
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    for wanted in json.load(sys.stdin):
        Path(wanted["out"]).write_text(json.dumps(estimate(wanted)))


if __name__ == "__main__":
    main()
