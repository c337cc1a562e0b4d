"""What simulated tomograms are drawn from, and from which ranges."""

from dataclasses import dataclass

from emflow.simulation_ranges import Range


@dataclass(frozen=True)
class TomogramRanges:
    """The ranges of domain randomisation of a tomogram: one draw each, unless a comment says otherwise.

    A pair of bounds is drawn from uniformly, or log-uniformly where the comment says so; counts are of a
    micrometre cubed of ice, so that they follow the tomogram's size.
    """

    # Ice
    thickness_angstrom: Range = (800.0, 2000.0)
    face_tilt_degrees: Range = (0.0, 6.0)
    face_roughness_angstrom: Range = (10.0, 60.0)
    crowder_volume_fraction: Range = (0.01, 0.12)
    crowder_sigma_angstrom: Range = (14.0, 26.0)

    # Membranes: bare or with proteins; each one's own thickness, head to head
    vesicles: Range = (300.0, 3000.0)  # logarithmic
    vesicle_radius_angstrom: Range = (150.0, 800.0)  # logarithmic, each
    sheet_probability: float = 0.4
    head_distance_angstrom: Range = (32.0, 42.0)
    head_volt: Range = (1.8, 3.2)
    tail_volt: Range = (-0.6, 0.0)
    undulation_angstrom: Range = (0.0, 60.0)
    membrane_proteins_per_square_micrometre: Range = (0.0, 3000.0)

    # Compact complexes, filaments, gold
    ribosomes: Range = (600.0, 10_000.0)  # logarithmic
    ribosome_probability: float = 0.8
    complexes: Range = (1000.0, 20_000.0)  # logarithmic
    complex_probability: float = 0.8
    complex_kilodalton: Range = (350.0, 1100.0)
    microtubule_probability: float = 0.5
    microtubules: Range = (1.0, 5.0)  # in all
    actin_probability: float = 0.5
    actin_filaments: Range = (2.0, 14.0)  # in all
    gold_probability: float = 0.4
    gold_beads: Range = (300.0, 3000.0)  # logarithmic
    gold_radius_angstrom: Range = (25.0, 80.0)
    carbon_probability: float = 0.25

    # Microscope and tilt scheme
    voltage_kilovolt: float = 300.0
    spherical_aberration_millimetre: float = 2.7
    amplitude_contrast: Range = (0.07, 0.12)
    defocus_angstrom: Range = (20_000.0, 60_000.0)
    defocus_step_angstrom: float = 300.0  # deviation between the images of a series
    max_tilt_degrees: Range = (50.0, 66.0)
    tilt_step_degrees: tuple[float, ...] = (2.0, 3.0, 3.0, 4.0)
    lamella_tilt_degrees: Range = (-10.0, 10.0)  # of the scheme's middle
    axis_degrees: Range = (-8.0, 8.0)  # from one of the camera's sides
    dose_electrons_per_square_angstrom: Range = (100.0, 140.0)
    detective_quantum_efficiency: Range = (0.4, 0.9)
    free_path_angstrom: Range = (2500.0, 4000.0)
    potential_scale: Range = (0.6, 1.2)  # what solvent flattening and inelastic loss leave of the contrast
    b_factor_square_angstrom: Range = (0.0, 3000.0)
    exposure_weighting_probability: float = 0.6

    # What an alignment leaves
    residual_shift_pixels: Range = (0.0, 0.8)
    residual_axis_degrees: Range = (-0.3, 0.3)
