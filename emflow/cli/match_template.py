"""Find the particles of a tomogram by their likeness to a template, with their angles."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.cli.series import geometry_of, read_tilts
from emflow.cli.tomograms import StoredTomogram, failed_reason, read_volume_row
from emflow.errors import SettingError
from emflow.fourier import even_side
from emflow.io.gpus import take_device
from emflow.io.index import OK, VolumePickRow, write_index
from emflow.io.volume_picks import (
    SUGGESTED_THRESHOLD,
    volume_picks_table,
    write_failed_picks,
    write_volume_picks,
)
from emflow.io.volumes import open_labels
from emflow.resampling import Resampling
from emflow.volume_picking import centred_angstrom, labels_at

if TYPE_CHECKING:
    from emflow.template_weighting import Correction, TiltOptics
    from emflow.tilt_geometry import TiltGeometry

STAGE = "match_template"
_DISTANCE_DIAMETERS = 0.7


def match_template(
    *,
    tomogram: Path,
    output: Path,
    template: Path,
    name: str = "template",
    tilts: Path | None = None,
    diameter_angstrom: float = 0.0,
    template_pixel_size_angstrom: float = 0.0,
    pixel_size_angstrom: float = 0.0,
    angular_step_degrees: float = 15.0,
    symmetry: str = "C1",
    minimum_distance_angstrom: float = 0.0,
    threshold: Literal["auto"] | float = "auto",
    floor: float = 0.4,
    segmented: Path | None = None,
    outside: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    max_tilt_degrees: float = 60.0,
    ctf: Literal["none", "phase_flip", "deconvolve"] = "none",
    exposure_weighting: bool = True,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
) -> None:
    """Write the candidates of a tomogram, above a low floor, and their table.

    Parameters
    ----------
    tomogram
        The tomogram.tsv; protein is dark in it.
    output
        The matched.tsv to write; matched.star lies beside it.
    template
        A map (MRC), protein bright, or an atomic model (PDB, mmCIF).
    name
        Class that the picks are called by.
    tilts
        The alignment.tsv or tilt_ctf.tsv of the tomogram's tilt series, if there is one.
    diameter_angstrom
        Of the particle; 0 takes an atomic model's own.
    template_pixel_size_angstrom
        Of a map; 0 takes its header's.
    pixel_size_angstrom
        To match at; 0, or finer than the tomogram's, takes the tomogram's.
    angular_step_degrees
        Between neighbouring rotations.
    symmetry
        Of the particle, axes as RELION has them: C1, C2 ..., D1, D2 ..., T, O, I (the same as I2),
        I1, I2, I3 or I4.
    minimum_distance_angstrom
        Of two picks; 0 takes 0.7 diameters.
    threshold
        Sharpened correlation with a figure of merit of 0.5; auto takes one that stands out of
        the tomogram's other peaks.
    floor
        Candidates with a lower figure of merit are not kept.
    segmented
        The segmented.tsv of the tomogram, for outside.
    outside
        Classes of the segmentation that peaks do not count in.
    max_tilt_degrees
        Largest tilt, about y, of a tomogram without its tilt series.
    ctf
        What the reconstruction did about the contrast transfer function.
    exposure_weighting
        Whether images were weighted by damage before.
    device
        auto, cpu or cuda.
    threads
        Of the CPU.
    """
    import torch

    from emflow.io.templates import read_template
    from emflow.standardised_tomogram import StandardisedTomogram
    from emflow.template_matching import figures_of_merit, match
    from emflow.template_orientations import orientations, relion_angles
    from emflow.template_refinement import refined_rotations
    from emflow.template_weighting import tomogram_transfer

    torch.set_num_threads(threads)
    row = read_volume_row(tomogram)
    star = output.with_suffix(".star")
    if (reason := failed_reason(row)) is not None:
        write_failed_picks(output, row.name, reason)
        return
    file = read_template(
        template,
        template_pixel_size_angstrom=template_pixel_size_angstrom,
        diameter_angstrom=diameter_angstrom,
    )
    stored = StoredTomogram.open(row, tomogram.parent)
    source = _Source.of(stored, pixel_size_angstrom)
    pixel = source.pixel_size_angstrom
    made = file.template(pixel)
    geometry, optics = _tilts(tilts, max_tilt_degrees, ctf, exposure_weighted=exposure_weighting)
    try:
        rotations = orientations(angular_step_degrees, symmetry)
    except ValueError as error:
        raise SettingError(f"template_matching: {error}") from None
    chosen = take_device(device)
    known = "wedge and CTF" if optics is not None else "wedge alone"
    say(STAGE, f"{row.name}: {len(rotations)} rotations at {pixel:.4g} A on {chosen}, {known}")
    seen = StandardisedTomogram.measured(source.read, source.shape)
    transfer = tomogram_transfer(made.box, pixel, geometry, optics)
    found = match(
        seen,
        made,
        rotations,
        transfer,
        distance_voxels=(minimum_distance_angstrom or _DISTANCE_DIAMETERS * file.diameter_angstrom) / pixel,
        device=chosen,
        progress=lambda done, all_: say(STAGE, f"{row.name}: {done}/{all_} tiles"),
    )
    if segmented is not None and outside:
        found = found.where(~_in_classes(found.voxels_zyx, source, segmented, outside))
    limit = found.threshold() if threshold == "auto" else float(threshold)
    merits = figures_of_merit(found.scores, limit)
    keep = merits >= floor
    turned = refined_rotations(
        seen,
        made,
        found.voxels_zyx[keep],
        rotations[found.rotations[keep]],
        transfer,
        step_degrees=angular_step_degrees,
        device=chosen,
    )
    table = volume_picks_table(
        row.name,
        centred_angstrom(found.voxels_zyx[keep], source.shape, pixel),
        relion_angles(turned),
        [name] * int(keep.sum()),
        merits[keep],
    )
    above = int((merits >= SUGGESTED_THRESHOLD).sum())
    say(STAGE, f"{row.name}: {above} of {len(table)} candidates correlate by {limit:.3f} or more")
    checksum = write_volume_picks(star, table)
    done = VolumePickRow(row.name, OK, "", len(table), SUGGESTED_THRESHOLD, checksum)
    write_index(output, [done], VolumePickRow)


@dataclass
class _Source:
    """A stored tomogram at the voxels that it is matched at, read in parts."""

    stored: StoredTomogram
    work: Resampling
    pixel_size_angstrom: float
    _slab: tuple[int, int, NDArray[np.float32]] | None = None

    @classmethod
    def of(cls, stored: StoredTomogram, wanted_angstrom: float) -> "_Source":
        own = stored.row.pixel_size_angstrom or 1.0
        pixel = max(own, wanted_angstrom)
        depth, height, width = (
            side if pixel == own else even_side(side * own / pixel) for side in stored.shape
        )
        return cls(stored, Resampling(stored.shape, (depth, height, width), pixel / own), pixel)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) in voxels."""
        return self.work.target

    def read(self, part: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        """Return a part (z, y, x); of coarser voxels the last slices are kept, as tiles come side by side."""
        if self.work.factor == 1:
            return self.stored.read_part(self.stored.channels[0], part)
        first, last = part[0].start, part[0].stop
        if self._slab is None or self._slab[:2] != (first, last):
            slices = partial(self.stored.read, self.stored.channels[0])
            self._slab = (first, last, self.work.slab(slices, first, last))
        return self._slab[2][:, part[1], part[2]]


def _in_classes(
    voxels_zyx: NDArray[np.float64], source: _Source, segmented: Path, names: Sequence[str]
) -> NDArray[np.bool_]:
    """Return which places (n, 3) a tomogram's segmentation calls one of some classes."""
    row = read_volume_row(segmented)
    if (reason := failed_reason(row)) is not None:
        say(STAGE, f"{row.name}: peaks count wherever they lie, as there is no segmentation: {reason}")
        return np.zeros(len(voxels_zyx), dtype=bool)
    stored = StoredTomogram.open(row, segmented.parent)
    if stored.shape != source.stored.shape:
        sizes = [" x ".join(str(side) for side in one.shape[::-1]) for one in (stored, source.stored)]
        raise SettingError(f"{segmented} has {sizes[0]} voxels, and the tomogram {sizes[1]}")
    labels = open_labels(stored.store)
    found = labels_at(
        lambda first, last: np.asarray(labels[first:last]),
        stored.shape,
        source.work.source_voxels(voxels_zyx),
    )
    among = np.isin(found, stored.numbers("template_matching.outside", names))
    say(STAGE, f"{row.name}: {int(among.sum())} of {len(among)} peaks lie in {', '.join(names)}")
    return among


def _tilts(
    path: Path | None, max_tilt_degrees: float, correction: "Correction", *, exposure_weighted: bool
) -> "tuple[TiltGeometry, TiltOptics | None]":
    """Return the geometry of a tomogram's tilts, and their optics where all of it is known."""
    from emflow.template_weighting import TiltOptics, wedge_geometry

    rows = read_tilts(path)[1] if path is not None else []
    if not rows:
        return wedge_geometry(-max_tilt_degrees, max_tilt_degrees), None
    first = rows[0]
    fitted = [row.ctf for row in rows if row.ctf is not None]
    voltage, aberration = first.voltage_kilovolt, first.spherical_aberration_millimetre
    contrast = first.amplitude_contrast
    if len(fitted) < len(rows) or voltage is None or aberration is None or contrast is None:
        return geometry_of(rows), None
    exposure = [
        (row.pre_exposure_electrons_per_square_angstrom or 0.0)
        + (row.exposure_electrons_per_square_angstrom or 0.0) / 2
        for row in rows
    ]
    optics = TiltOptics(
        np.array([(one.defocus_u_angstrom + one.defocus_v_angstrom) / 2 for one in fitted]),
        np.array([one.phase_shift_degrees for one in fitted]),
        np.array(exposure),
        voltage,
        aberration,
        contrast,
        correction,
        exposure_weighted,
    )
    return geometry_of(rows), optics
