"""The command that estimates a batch's CTFs."""

from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from emflow.cli.estimate_ctf import estimate_ctf
from emflow.ctf import ctf_2d
from emflow.errors import SettingError
from emflow.io.ctf_pictures import ctf_picture_path, read_ctf_picture
from emflow.io.index import FAILED, OK, MicrographRow, read_index, write_index
from emflow.io.mrc import write_mrc

PIXEL, SIDE = 1.3, 512


def write_batch(folder: Path, defocuses: list[float]) -> list[MicrographRow]:
    """Write micrographs of strong rings, and their table."""
    rows = []
    for number, defocus in enumerate(defocuses):
        rng = np.random.default_rng(number)
        matter = scipy.fft.rfft2(rng.standard_normal((SIDE, SIDE)))
        transfer = ctf_2d(
            (SIDE, SIDE),
            PIXEL,
            defocus_u_angstrom=defocus,
            defocus_v_angstrom=defocus,
            defocus_angle_degrees=0,
            voltage_kilovolt=300,
            spherical_aberration_millimetre=2.7,
            amplitude_contrast=0.1,
            b_factor_square_angstrom=60,
        )
        image = scipy.fft.irfft2(matter * transfer) + 0.5 * rng.standard_normal((SIDE, SIDE))
        name = f"square_{number}/one.mrc"
        path = folder / "data" / name
        path.parent.mkdir(parents=True)
        write_mrc(path, image.astype(np.float32), PIXEL)
        rows.append(
            MicrographRow(
                name=name,
                status=OK,
                path=str(path),
                height=SIDE,
                width=SIDE,
                optics_group="one",
                pixel_size_angstrom=PIXEL,
                voltage_kilovolt=300.0,
                spherical_aberration_millimetre=2.7,
                amplitude_contrast=0.1,
            )
        )
    write_index(folder / "micrographs.tsv", rows, MicrographRow)
    return rows


def test_a_batch_gets_its_ctfs_and_pictures_whatever_the_threads(tmp_path: Path) -> None:
    write_batch(tmp_path, [9000.0, 14000.0])
    estimate_ctf(micrographs=tmp_path / "micrographs.tsv", output=tmp_path / "ctf.tsv", device="cpu")
    rows = read_index(tmp_path / "ctf.tsv", MicrographRow)
    for row, defocus in zip(rows, (9000.0, 14000.0), strict=True):
        assert row.status == OK
        assert row.defocus_u_angstrom == pytest.approx(defocus, abs=200)
        assert row.defocus_v_angstrom == pytest.approx(defocus, abs=200)
        assert row.ctf_figure_of_merit is not None
        assert row.ctf_figure_of_merit > 0.9
        assert row.ctf_defocus_error_angstrom is not None
        assert 0 < row.ctf_defocus_error_angstrom < 200
        picture = read_ctf_picture(ctf_picture_path(tmp_path, row.name))
        assert picture.ndim == 2
        assert picture.std() > 10
    other = tmp_path / "other" / "ctf.tsv"
    estimate_ctf(micrographs=tmp_path / "micrographs.tsv", output=other, device="cpu", threads=2)
    assert other.read_bytes() == (tmp_path / "ctf.tsv").read_bytes()


def test_a_bad_micrograph_is_left_out_and_a_known_ctf_is_kept(tmp_path: Path) -> None:
    import dataclasses

    rows = write_batch(tmp_path, [9000.0, 12000.0, 15000.0])
    Path(rows[0].path).write_text("no image")
    write_mrc(tmp_path / "constant.mrc", np.full((SIDE, SIDE), 3, dtype=np.float32), PIXEL)
    rows.append(dataclasses.replace(rows[0], name="constant.mrc", path=str(tmp_path / "constant.mrc")))
    rows[1] = dataclasses.replace(rows[1], defocus_u_angstrom=5000.0, defocus_v_angstrom=4000.0)
    write_index(tmp_path / "micrographs.tsv", rows, MicrographRow)
    estimate_ctf(micrographs=tmp_path / "micrographs.tsv", output=tmp_path / "ctf.tsv", device="cpu")
    bad, kept, found, constant = read_index(tmp_path / "ctf.tsv", MicrographRow)
    assert constant.status == FAILED
    assert "is constant" in constant.reason
    assert bad.status == FAILED
    assert "one.mrc" in bad.reason
    # failures.tsv is that of stages that run at the same time.
    assert not (tmp_path / "failures.tsv").exists()
    told = (tmp_path / "ctf/failures.tsv").read_text().splitlines()
    assert told == ["name\treason", f"{bad.name}\t{bad.reason}", f"constant.mrc\t{constant.reason}"]
    assert kept == rows[1]
    assert found.defocus_u_angstrom == pytest.approx(15000, abs=200)
    estimate_ctf(
        micrographs=tmp_path / "micrographs.tsv", output=tmp_path / "ctf.tsv", replace=True, device="cpu"
    )
    assert read_index(tmp_path / "ctf.tsv", MicrographRow)[1].defocus_u_angstrom == pytest.approx(
        12000, abs=200
    )


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    import dataclasses

    rows = write_batch(tmp_path, [9000.0])
    table, output = tmp_path / "micrographs.tsv", tmp_path / "ctf.tsv"
    with pytest.raises(SettingError, match="--min-defocus-angstrom"):
        estimate_ctf(micrographs=table, output=output, min_defocus_angstrom=9e4)
    with pytest.raises(SettingError, match="--finest-resolution-angstrom"):
        estimate_ctf(micrographs=table, output=output, finest_resolution_angstrom=40)
    with pytest.raises(SettingError, match="fewer than"):
        estimate_ctf(
            micrographs=table, output=output, coarsest_resolution_angstrom=4.5, finest_resolution_angstrom=4.4
        )
    for change, told in (
        ({"voltage_kilovolt": 0.0}, "optics group one: voltage 0.0 kV is not positive"),
        ({"pixel_size_angstrom": 40.0}, r"optics group one: .* fewer than 16; .* ctf.enabled: false"),
    ):
        write_index(table, [dataclasses.replace(rows[0], **change)], MicrographRow)
        with pytest.raises(SettingError, match=told):
            estimate_ctf(micrographs=table, output=output, device="cpu")
    write_index(table, [dataclasses.replace(rows[0], voltage_kilovolt=None)], MicrographRow)
    with pytest.raises(SettingError, match="voltage"):
        estimate_ctf(micrographs=table, output=output)
    assert not output.exists()
