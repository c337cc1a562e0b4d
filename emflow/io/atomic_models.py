"""Atomic models (PDB, mmCIF, gzipped or not) as particles for the simulator."""

from pathlib import Path

import numpy as np

from emflow.errors import BadInputError, SettingError
from emflow.io.atomic_model_files import atomic_model_files
from emflow.simulation.atoms import structure_from_atoms
from emflow.simulation.shapes import Structure


def read_atomic_model(path: Path) -> Structure:
    """Read one model, as its first biological assembly where the file states one; waters are left out.

    Raises
    ------
    BadInputError
        If the file cannot be read or has no atoms.
    SettingError
        If gemmi, which reads it, is not installed.
    """
    try:
        import gemmi
    except ImportError:
        raise SettingError("atomic models need gemmi: pip install 'emflow[train]'") from None
    try:
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
        if structure.assemblies:
            structure.transform_to_assembly(structure.assemblies[0].name, gemmi.HowToNameCopiedChain.Short)
        structure.remove_hydrogens()
        structure.remove_waters()
        structure.remove_alternative_conformations()
        model = structure[0]
    except (RuntimeError, ValueError, IndexError) as error:
        raise BadInputError(f"{path} is not an atomic model: {error}") from None
    positions, scattering, nucleic, names = [], [], [], []
    for chain in model:
        for residue in chain:
            is_nucleic = gemmi.find_tabulated_residue(residue.name).is_nucleic_acid()
            for atom in residue:
                positions.append(atom.pos.tolist())
                scattering.append(atom.element.c4322.calculate_sf(0.0))
                nucleic.append(is_nucleic)
                names.append(atom.name)
    if not positions:
        raise BadInputError(f"{path} has no atoms")
    return structure_from_atoms(
        path.name.split(".")[0],
        np.asarray(positions, dtype=np.float64),
        np.asarray(scattering, dtype=np.float64),
        np.asarray(nucleic, dtype=bool),
        alpha_carbons_alone=names.count("CA") > 0.9 * len(names),
    )


def read_atomic_models(folder: Path) -> list[tuple[Structure, Path]]:
    """Read the models of `atomic_model_files`, each with its file.

    Raises
    ------
    SettingError
        If there is no such folder or no model in it.
    BadInputError
        If a model cannot be read.
    """
    return [(read_atomic_model(path), path) for path in atomic_model_files(folder).values()]
