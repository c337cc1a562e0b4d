"""Atomic models as particles: each atom's scattering, less the ice that it displaces."""

import math

import numpy as np
from numpy.typing import NDArray

from emflow.simulation.shapes import Structure, centred_structure

# A free atom's projected potential is 47.878 V angstrom^2 times its electron scattering factor at zero angle:
# Kirkland, Advanced Computing in Electron Microscopy, 2nd edition (2010), section 5.1.
_VOLT_SQUARE_ANGSTROM = 47.878
_HYDROGEN = 0.529
_ICE_VOLT = 4.5
# Volume a non-hydrogen atom takes with its hydrogens, cubic angstrom: 0.73 and 0.55 cm^3/g.
_PROTEIN_VOLUME = 17.3
_NUCLEIC_VOLUME = 14.1
# Non-hydrogen atoms of a mean residue, for models of alpha carbons alone.
_ATOMS_PER_RESIDUE = 7.8
_MOST_BLOBS = 30_000


def structure_from_atoms(
    name: str,
    positions_angstrom: NDArray[np.floating],
    scattering_angstrom: NDArray[np.floating],
    nucleic: NDArray[np.bool_],
    *,
    alpha_carbons_alone: bool = False,
) -> Structure:
    """Return a particle from its non-hydrogen atoms.

    Each atom counts with one hydrogen, which is a protein's mean. Large models are gathered in blobs of
    some angstrom, as no more is seen in a micrograph.

    Parameters
    ----------
    name
        For logs and tables.
    positions_angstrom
        (n, 3), x y z.
    scattering_angstrom
        (n,) electron scattering factors at zero angle.
    nucleic
        (n,) whether an atom is of a nucleic acid.
    alpha_carbons_alone
        Whether each atom stands for a residue.

    Raises
    ------
    ValueError
        If there is no atom.
    """
    if not len(positions_angstrom):
        raise ValueError(f"{name} has no atoms")
    volume = np.where(nucleic, _NUCLEIC_VOLUME, _PROTEIN_VOLUME)
    weights: NDArray[np.float64] = (
        _VOLT_SQUARE_ANGSTROM * (scattering_angstrom + _HYDROGEN) - _ICE_VOLT * volume
    )
    sigma = 1.0
    if alpha_carbons_alone:
        weights = weights * _ATOMS_PER_RESIDUE
        sigma = 2.5
    low, high = positions_angstrom.min(0), positions_angstrom.max(0)
    spacing = max(2.0, float(np.prod(high - low + 4)) ** (1 / 3) / _MOST_BLOBS ** (1 / 3))
    if len(weights) > _MOST_BLOBS or spacing > 2.0:
        cells = np.floor((positions_angstrom - low) / spacing).astype(np.int64)
        size = cells.max(0) + 1
        flat = (cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]
        _, inverse = np.unique(flat, return_inverse=True)
        count = np.bincount(inverse)
        sums = [np.bincount(inverse, positions_angstrom[:, axis]) for axis in range(3)]
        positions_angstrom = np.stack(sums, 1) / count[:, None]
        weights = np.bincount(inverse, weights).astype(np.float64)
        sigma = math.hypot(sigma, spacing / math.sqrt(12))
    return centred_structure(name, positions_angstrom, weights, sigma, rescalable=False)
