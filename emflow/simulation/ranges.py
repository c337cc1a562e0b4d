"""What the simulator draws at random, and from which ranges."""

import math
from dataclasses import dataclass, replace

import numpy as np

Range = tuple[float, float]


def uniform(rng: np.random.Generator, bounds: Range) -> float:
    """Draw uniformly between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * float(rng.random())


def mostly_low(rng: np.random.Generator, bounds: Range) -> float:
    """Draw between two bounds by a uniform deviate's square: half of all fall in the lowest quarter."""
    return bounds[0] + (bounds[1] - bounds[0]) * float(rng.random()) ** 2


def log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    """Draw log-uniformly between two positive bounds."""
    return math.exp(uniform(rng, (math.log(bounds[0]), math.log(bounds[1]))))


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
