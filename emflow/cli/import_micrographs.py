"""Import one batch of motion-corrected micrographs: check each file, and say what is known of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from emflow.cli.input_batch import InputBatch, check_pixel_size, write_table
from emflow.cli.progress import say
from emflow.errors import BadInputError, SettingError
from emflow.io.claims import Claim
from emflow.io.index import OK, MicrographRow
from emflow.io.inputs import InputRow
from emflow.io.micrographs import is_tiff, read_header
from emflow.io.mrc import check_pixels, write_mrc
from emflow.io.tiff import read_tiff
from emflow.metadata import Ctf, OpticsGroup


def import_micrographs(
    *,
    inputs: Path,
    session: str,
    batch: str,
    digest: str,
    output: Path,
    star: Path | None = None,
    pixel_size_angstrom: float | None = None,
    voltage_kilovolt: float | None = None,
    spherical_aberration_millimetre: float | None = None,
    amplitude_contrast: float = 0.1,
    header_pixel_size_angstrom: float | None = None,
) -> None:
    """Check a batch's micrographs and write their table; TIFF files are rewritten as MRC.

    Parameters
    ----------
    inputs
        The session folder's inputs.tsv.
    session, batch
        Which rows of it.
    digest
        What those rows were when the job was planned; another digest is refused.
    output
        The micrographs.tsv to write.
    star
        RELION micrographs STAR with optics groups and CTF; then the four constants are not needed.
    pixel_size_angstrom
        Angstrom per unbinned pixel.
    voltage_kilovolt
        Acceleration voltage in kV.
    spherical_aberration_millimetre
        Cs in mm.
    amplitude_contrast
        Fraction of amplitude contrast.
    header_pixel_size_angstrom
        What the headers are expected to say, if that is not the pixel size.
    """
    ours = InputBatch.read("import_micrographs", inputs, session=session, batch=batch, digest=digest)
    claim = Claim(output)
    if star is not None:
        known = _from_star(star)
    else:
        if pixel_size_angstrom is None or voltage_kilovolt is None or spherical_aberration_millimetre is None:
            raise SettingError("pixel size, voltage and Cs are needed where there is no STAR file")
        optics = OpticsGroup(
            session,
            pixel_size_angstrom,
            voltage_kilovolt,
            spherical_aberration_millimetre,
            amplitude_contrast,
        )
        known = {row.name: (optics, None) for row in ours.rows}
    table = ours.each(
        lambda row: _import_one(row, known.get(row.name), header_pixel_size_angstrom, output.parent)
    )
    write_table(claim, output, table)
    accepted = sum(row.status == OK for row in table)
    say("import_micrographs", f"{session} {batch}: {accepted} of {len(table)} micrographs accepted")


def _from_star(star: Path) -> dict[str, tuple[OpticsGroup, Ctf | None]]:
    from emflow.io.star import read_relion_micrographs

    return {entry.name: (entry.optics, entry.ctf) for entry in read_relion_micrographs(star)}


def _import_one(
    row: InputRow,
    known: tuple[OpticsGroup, Ctf | None] | None,
    header_pixel_size_angstrom: float | None,
    folder: Path,
) -> MicrographRow:
    if known is None:
        raise BadInputError("is no longer in the STAR file")
    optics, ctf = known
    path = Path(row.path)
    header = read_header(path)
    expected = header_pixel_size_angstrom or optics.pixel_size_angstrom
    check_pixel_size(header.pixel_size_angstrom, expected, says="its optics group")
    if is_tiff(path):
        path = _rewrite_as_mrc(path, folder / "micrographs" / f"{row.name}.mrc", optics)
    accepted = MicrographRow(
        name=row.name,
        status=OK,
        path=str(path.absolute()),
        height=header.height,
        width=header.width,
        optics_group=optics.name,
        pixel_size_angstrom=optics.pixel_size_angstrom,
        voltage_kilovolt=optics.voltage_kilovolt,
        spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
        amplitude_contrast=optics.amplitude_contrast,
    )
    if ctf is None:
        return accepted
    return replace(
        accepted,
        defocus_u_angstrom=ctf.defocus_u_angstrom,
        defocus_v_angstrom=ctf.defocus_v_angstrom,
        defocus_angle_degrees=ctf.defocus_angle_degrees,
        phase_shift_degrees=ctf.phase_shift_degrees,
        ctf_max_resolution_angstrom=ctf.max_resolution_angstrom,
        ctf_figure_of_merit=ctf.figure_of_merit,
    )


def _rewrite_as_mrc(path: Path, target: Path, optics: OpticsGroup) -> Path:
    image = read_tiff(path)
    check_pixels(image.astype(np.float32))
    # MRC knows these types; every other one that a TIFF may have fits one of the two wider ones.
    if image.dtype == np.uint8:
        image = image.astype(np.uint16)
    elif image.dtype not in (np.int8, np.int16, np.uint16, np.float16, np.float32):
        image = image.astype(np.float32)
    write_mrc(target, image, optics.pixel_size_angstrom)
    return target
