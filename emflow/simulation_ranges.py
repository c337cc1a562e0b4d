"""What the simulator of micrographs draws at random: the ranges, and how a user has some of them otherwise.

It stands by itself because config.yaml has such ranges, and whoever reads that must not wait for torch.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from emflow.errors import SettingError

Range = tuple[float, float]


@dataclass(frozen=True)
class SimulationRanges:
    """The ranges of domain randomisation: one draw a micrograph, unless a field's comment says otherwise.

    A pair of bounds is drawn from uniformly, or log-uniformly where the comment says so; a probability is
    that of the feature being in a micrograph. A pair of equal bounds fixes a value.
    """

    # Microscope
    voltages_kilovolt: tuple[float, ...] = (300.0, 200.0, 120.0)
    voltage_weights: tuple[float, ...] = (0.6, 0.35, 0.05)
    spherical_aberration_millimetre: float = 2.7
    corrected_probability: float = 0.2
    corrected_spherical_aberration_millimetre: Range = (0.01, 2.7)
    amplitude_contrast: Range = (0.07, 0.14)
    defocus_angstrom: Range = (3000.0, 40000.0)  # logarithmic
    astigmatism_angstrom: Range = (0.0, 800.0)
    phase_plate_probability: float = 0.05
    phase_shift_degrees: Range = (40.0, 130.0)
    b_factor_square_angstrom: Range = (0.0, 300.0)
    drift_probability: float = 0.3
    drift_angstrom: Range = (0.0, 6.0)

    # Exposure and detector
    dose_electrons_per_square_angstrom: Range = (15.0, 80.0)  # logarithmic
    raw_pixel_size_angstrom: Range = (0.5, 3.0)  # logarithmic; the detector's, where MTF and DQE end
    detective_quantum_efficiency_at_zero: Range = (0.4, 0.9)
    detective_quantum_efficiency_at_nyquist: Range = (0.05, 0.4)
    modulation_transfer_at_nyquist: Range = (0.2, 0.8)
    bad_pixel_fraction: Range = (0.0, 1e-4)
    gain_residual_probability: float = 0.3
    gain_residual: Range = (0.0, 0.03)  # mostly low
    sign_inversion_probability: float = 0.0  # emflow keeps protein dark; raise it to train against mishaps

    # Ice
    ice_thickness_angstrom: Range = (150.0, 1500.0)  # logarithmic; never thinner than the particle
    ice_gradient: Range = (0.0, 3.0)  # mostly low; of the thickness, from edge to edge
    mean_free_path_angstrom: float = 3000.0  # inelastic, at 300 kV
    ice_structure: Range = (0.5, 3.0)  # of the fluctuation of liquid water's density
    background_amplitude: Range = (0.0, 3.0)  # mostly low; over the shot noise at the picker's scale
    background_length_angstrom: Range = (150.0, 1500.0)  # logarithmic
    support_film_probability: float = 0.1
    support_film_angstrom: Range = (20.0, 120.0)

    # Particles
    pixels_per_diameter: float = 24.0
    diameter_error: Range = (0.75, 1.3)  # the true diameter over the one that the user gives
    rescale: Range = (0.8, 1.25)  # of a procedural shape's own size, a scene
    signal_to_noise: Range = (0.03, 3.0)  # variances; physics decides, and what falls outside is drawn anew
    signal_to_noise_pixels_per_diameter: float = 24.0
    # Of the nominal potential: damage, motion, disorder. Real particles of known mass look about half as dark
    # as their superposed free atoms say.
    protein_contrast: Range = (0.5, 1.1)
    coverage: Range = (0.02, 0.6)  # logarithmic; of the area, by discs of the particle's diameter
    minimum_distance_diameters: Range = (0.7, 1.3)
    overlap_probability: float = 0.3
    overlap_fraction: Range = (0.0, 0.2)
    empty_probability: float = 0.08
    second_species_probability: float = 0.3
    distractor_probability: float = 0.3  # fragments, unlabelled
    preferred_orientation_probability: float = 0.4
    preferred_orientation_kappa: Range = (2.0, 30.0)  # logarithmic
    particles_on_carbon_probability: float = 0.5

    # Contaminants
    ice_crystal_probability: float = 0.35
    ice_crystal_count: tuple[int, int] = (1, 8)
    ice_crystal_diameters: Range = (0.5, 12.0)  # logarithmic, in particle diameters
    ice_crystal_contrast: Range = (2.0, 15.0)  # logarithmic, over a particle's
    ethane_probability: float = 0.15
    carbon_probability: float = 0.25
    foil_probability: float = 0.1
    aggregate_probability: float = 0.2
    aggregate_particles: tuple[int, int] = (3, 40)
    bead_probability: float = 0.1
    crack_probability: float = 0.05
    beam_edge_probability: float = 0.1

    def clean(self) -> "SimulationRanges":
        """Return the same ranges without contaminants, empty micrographs and detector faults."""
        return replace(
            self,
            empty_probability=0.0,
            distractor_probability=0.0,
            ice_crystal_probability=0.0,
            ethane_probability=0.0,
            carbon_probability=0.0,
            foil_probability=0.0,
            aggregate_probability=0.0,
            bead_probability=0.0,
            crack_probability=0.0,
            beam_edge_probability=0.0,
            support_film_probability=0.0,
            bad_pixel_fraction=(0.0, 0.0),
            gain_residual_probability=0.0,
        )


# Drawn by their logarithm, which 0 has not.
_LOGARITHMIC = frozenset(
    {
        "defocus_angstrom",
        "dose_electrons_per_square_angstrom",
        "raw_pixel_size_angstrom",
        "ice_thickness_angstrom",
        "background_length_angstrom",
        "signal_to_noise",
        "coverage",
        "preferred_orientation_kappa",
        "ice_crystal_diameters",
        "ice_crystal_contrast",
    }
)
# What is divided by, or divides an image into nothing.
_ABOVE_ZERO = _LOGARITHMIC | {
    "voltages_kilovolt",
    "mean_free_path_angstrom",
    "pixels_per_diameter",
    "signal_to_noise_pixels_per_diameter",
    "diameter_error",
    "rescale",
    "minimum_distance_diameters",
}
_SHARES = frozenset(
    {
        "amplitude_contrast",
        "detective_quantum_efficiency_at_zero",
        "detective_quantum_efficiency_at_nyquist",
        "modulation_transfer_at_nyquist",
        "bad_pixel_fraction",
        "gain_residual",
        "coverage",
        "overlap_fraction",
    }
)
# As many as there are voltages, in no order.
_LISTS = ("voltages_kilovolt", "voltage_weights")


def changed_ranges(ranges: SimulationRanges, changes: Mapping[str, Any], source: str) -> SimulationRanges:
    """Return ranges with a user's values for some of them.

    Parameters
    ----------
    ranges
        What a range is that ``changes`` does not name.
    changes
        By field of `SimulationRanges`: a number, or a list of the least and the most (of the voltages and
        their weights as many as one likes).
    source
        Where they were written: a refusal begins with it and the field's name.

    Raises
    ------
    SettingError
        When a name is no field, a value has another form than its field, is out of its bounds, or the most is
        below the least.
    """
    known = [field.name for field in fields(SimulationRanges)]
    values: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise SettingError(f"{source}{key}: no range of the simulator has this name{meant}")
        default = getattr(ranges, key)
        if isinstance(default, tuple):
            values[key] = _several(key, default, value, f"{source}{key}")
        else:
            values[key] = _number(key, default, value, f"{source}{key}")
    changed = replace(ranges, **values)
    if len(changed.voltages_kilovolt) != len(changed.voltage_weights) or not sum(changed.voltage_weights):
        raise SettingError(
            f"{source}voltage_weights: should be one for each of voltages_kilovolt, and not all 0; there are "
            f"{len(changed.voltage_weights)} for {len(changed.voltages_kilovolt)}"
        )
    return changed


def _several(key: str, default: tuple[float, ...], value: object, name: str) -> tuple[float, ...]:
    free = key in _LISTS
    if not isinstance(value, list | tuple) or not value or not (free or len(value) == len(default)):
        wanted = "a list of numbers" if free else f"a list of {len(default)} numbers"
        raise SettingError(f"{name}: should be {wanted}, not {value!r}")
    numbers = tuple(_number(key, default[0], one, name) for one in value)
    if not free and list(numbers) != sorted(numbers):
        raise SettingError(f"{name}: should be the least and the most, not {value!r}")
    return numbers


def _number(key: str, default: float, value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SettingError(f"{name}: should be a number of at least 0, not {value!r}")
    if key in _ABOVE_ZERO and value == 0:
        raise SettingError(f"{name}: should be above 0, not {value!r}")
    if (key.endswith("_probability") or key in _SHARES) and value > 1:
        raise SettingError(f"{name}: should be from 0 to 1, not {value!r}")
    if isinstance(default, int) and value != int(value):
        raise SettingError(f"{name}: should be whole numbers, not {value!r}")
    return type(default)(value)
