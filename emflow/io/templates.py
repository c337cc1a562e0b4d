"""Templates of template matching: maps (MRC) and atomic models (PDB, mmCIF), read and checked."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mrcfile
import numpy as np
from numpy.typing import NDArray

from emflow.errors import BadInputError, SettingError
from emflow.io.atomic_model_files import SUFFIXES
from emflow.template_preparation import (
    Template,
    TemplateError,
    box_voxels,
    checked_map,
    template_from_map,
    template_from_structure,
)

if TYPE_CHECKING:
    from emflow.simulation.shapes import Structure

MAPS = (".mrc", ".map", ".ccp4", ".rec", ".mrc.gz", ".map.gz")
_KEY = "template_matching.template"


@dataclass(frozen=True)
class TemplateFile:
    """What a file of a template holds: a map with its pixel size, or an atomic model."""

    path: Path
    diameter_angstrom: float
    source: "NDArray[np.float32] | Structure"
    map_pixel_size_angstrom: float = 0.0

    def template(self, pixel_size_angstrom: float) -> Template:
        """Return the template on a tomogram's voxels.

        Raises
        ------
        SettingError
            If it is too small on them, naming the file.
        """
        try:
            if isinstance(self.source, np.ndarray):
                return template_from_map(
                    self.source,
                    self.map_pixel_size_angstrom,
                    pixel_size_angstrom=pixel_size_angstrom,
                    diameter_angstrom=self.diameter_angstrom,
                )
            return template_from_structure(
                self.source,
                pixel_size_angstrom=pixel_size_angstrom,
                diameter_angstrom=self.diameter_angstrom,
            )
        except TemplateError as error:
            raise SettingError(f"{_KEY}: {self.path} {error}") from None


def read_template(
    path: Path, *, template_pixel_size_angstrom: float = 0.0, diameter_angstrom: float = 0.0
) -> TemplateFile:
    """Read a template's file and make sure that something can be looked for with it.

    Parameters
    ----------
    path
        An MRC map, protein bright, or an atomic model.
    template_pixel_size_angstrom
        Of the map; 0 takes its header's.
    diameter_angstrom
        Of the particle; 0 takes an atomic model's own.

    Raises
    ------
    SettingError
        In one line that names the file and the key.
    """
    if not path.is_file():
        raise SettingError(f"{_KEY}: {path}: no such file")
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        from emflow.io.atomic_models import read_atomic_model

        try:
            structure = read_atomic_model(path)
        except BadInputError as error:
            raise SettingError(f"{_KEY}: {error}") from None
        return TemplateFile(path, diameter_angstrom or structure.diameter_angstrom, structure)
    if not name.endswith(MAPS):
        raise SettingError(
            f"{_KEY}: {path} is neither a map ({', '.join(MAPS[:4])}) nor an atomic model "
            f"({', '.join(SUFFIXES[:3])})"
        )
    if not diameter_angstrom:
        raise SettingError(
            "template_matching.diameter_angstrom: should be given for a map: how long is the particle of "
            f"{path}?"
        )
    density, header_pixel = _read_map(path)
    pixel = template_pixel_size_angstrom or header_pixel
    if not 0.1 <= pixel <= 100:
        raise SettingError(
            f"{_KEY}: {path} states a pixel size of {header_pixel:g} A: set "
            "template_matching.template_pixel_size_angstrom"
        )
    try:
        checked_map(density, diameter_angstrom / pixel)
    except TemplateError as error:
        raise SettingError(f"{_KEY}: {path} {error}") from None
    return TemplateFile(path, diameter_angstrom, density, pixel)


def check_template_size(file: TemplateFile, pixel_size_angstrom: float) -> None:
    """Refuse a template that has too few voxels across on a tomogram's.

    Raises
    ------
    SettingError
        Naming the file.
    """
    try:
        box_voxels(file.diameter_angstrom, pixel_size_angstrom)
    except TemplateError as error:
        raise SettingError(f"{_KEY}: {file.path} {error}") from None


def _read_map(path: Path) -> tuple[NDArray[np.float32], float]:
    """Return a map's voxels (z, y, x) and the pixel size along x that its header states."""
    try:
        # Permissive: old headers have a wrong stamp or none; what is said of them is said again below.
        with warnings.catch_warnings(action="ignore"), mrcfile.open(path, permissive=True) as mrc:
            if mrc.data is None:
                raise ValueError("its header or its length is wrong")
            return np.array(mrc.data, dtype=np.float32), float(mrc.voxel_size.x)
    except (ValueError, OSError, EOFError) as error:
        raise SettingError(f"{_KEY}: {path} is no MRC map: {' '.join(str(error).split())}") from None
