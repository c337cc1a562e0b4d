"""What a CTF fit's figure of merit makes of rings that are none."""

import pytest

from emflow.ctf_estimation import estimate_ctf
from emflow.ctf_estimation.diagnosis import figure_of_merit
from emflow.ctf_estimation.rings import Microscope
from emflow.simulation import ParticleLibrary, SimulationRanges, draw_scene

MICROSCOPE = Microscope.of(300.0, 2.7, 0.1)


@pytest.mark.parametrize(("fine_gain", "believed"), [(1.0, False), (7.0, False), (20.0, True), (60.0, True)])
def test_rings_that_end_at_the_shapes_of_particles_are_not_believed(fine_gain, believed):
    merit = figure_of_merit(75.0, fine_gain, 9.0, 20000.0, MICROSCOPE, (3000.0, 50000.0))
    assert (merit > 0.9) if believed else (merit < 0.5)


@pytest.mark.parametrize("seed", [0, 3])
def test_cages_of_one_shape_are_not_taken_for_a_ctf(seed):
    # Some thirty particles of one shape: their form factor fits rings of other defoci than that of 0.63 um.
    scene = draw_scene(
        seed,
        shape=(2048, 2048),
        library=ParticleLibrary("train", procedural=1, first=8),
        ranges=SimulationRanges(
            defocus_angstrom=(6261.0, 6261.0),
            astigmatism_angstrom=(700.0, 700.0),
            phase_plate_probability=0.0,
            dose_electrons_per_square_angstrom=(57.0, 57.0),
            ice_thickness_angstrom=(335.0, 335.0),
            second_species_probability=0.0,
            coverage=(0.25, 0.25),
            rescale=(1.0, 1.0),
            signal_to_noise=(1.4, 1.4),
        ).clean(),
        pixel_size_angstrom=1.0175,
    )
    found = estimate_ctf(
        scene.image,
        pixel_size_angstrom=1.0175,
        voltage_kilovolt=scene.optics.voltage_kilovolt,
        spherical_aberration_millimetre=scene.optics.spherical_aberration_millimetre,
        amplitude_contrast=scene.optics.amplitude_contrast,
    ).ctf
    off = abs((found.defocus_u_angstrom + found.defocus_v_angstrom) / 2 - 6261)
    assert found.figure_of_merit is not None
    assert off < 300 or found.figure_of_merit < 0.5
