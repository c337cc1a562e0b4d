"""Depths of particles in simulated ice, and the defocus that they give."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
from hypothesis import given
from hypothesis import strategies as st
from unit.test_simulation import PLAIN

from emflow.ctf import electron_wavelength_angstrom
from emflow.simulation import ParticleLibrary, Structure, draw_scene
from emflow.simulation.depth import draw_depths, slabs


def test_particles_over_one_another_lie_at_different_depths() -> None:
    # Pairs of the same place, in ice in which two particles fit above one another, and four.
    for thickness in (400.0, 1000.0):
        clear = 0
        for seed in range(50):
            centres = np.array([[0.0, 0.0], [0.0, 0.0], [5000.0, 0.0]])
            depths = draw_depths(np.random.default_rng(seed), centres, 100.0, thickness)
            assert np.abs(depths).max() <= 0.5 * (thickness - 100.0)
            clear += abs(depths[0] - depths[1]) >= 100.0
        assert clear == 50


def test_ice_as_thin_as_the_particle_leaves_one_depth() -> None:
    depths = draw_depths(np.random.default_rng(1), np.zeros((4, 2)), 100.0, 100.0)
    assert np.array_equal(depths, np.zeros(4))
    assert len(draw_depths(np.random.default_rng(1), np.zeros((0, 2)), 100.0, 300.0)) == 0


@given(
    st.lists(st.floats(-2000, 2000), max_size=30),
    st.floats(0.3, 20.0),
)
def test_slabs_hold_every_particle_once_near_its_depth(depths: list[float], pixel: float) -> None:
    known = np.asarray(depths)
    wavelength = electron_wavelength_angstrom(300.0)
    found = slabs(known, wavelength, pixel)
    assert np.array_equal(
        sum((of_it.astype(int) for _, of_it in found), np.zeros(len(known), int)), np.ones(len(known))
    )
    assert len(found) <= 10
    allowed = 0.5 / (np.pi * wavelength * (0.5 / pixel) ** 2)
    coarsest = np.abs(known).max(initial=0.0) / 9
    for depth, members in found:
        assert np.abs(known[members] - depth).max() <= max(allowed, coarsest) * (1 + 1e-9)


def test_a_coarse_image_has_one_defocus() -> None:
    ((depth, members),) = slabs(np.array([-300.0, 0.0, 250.0]), electron_wavelength_angstrom(300.0), 6.0)
    assert depth == 0.0
    assert members.all()


def point() -> Structure:
    """One blob, whose image is the microscope's point spread."""
    return Structure("point", np.zeros((1, 3), np.float32), np.full(1, 5e3, np.float32), 0.5, 30.0, False)


@pytest.mark.parametrize("seed", [0, 4, 5])
def test_each_particle_is_seen_at_the_defocus_of_its_depth(seed: int) -> None:
    ranges = replace(
        PLAIN,
        ice_thickness_angstrom=(1500.0, 1500.0),
        corrected_probability=1.0,
        corrected_spherical_aberration_millimetre=(0.0, 0.0),
        amplitude_contrast=(0.1, 0.1),
        astigmatism_angstrom=(0.0, 0.0),
        b_factor_square_angstrom=(0.0, 0.0),
        defocus_angstrom=(6000.0, 6000.0),
        coverage=(0.0003, 0.0003),
        signal_to_noise=(1e-9, 1e9),
        overlap_probability=0.0,
    )
    library = ParticleLibrary("train", procedural=0, models=[point()])
    size, pixel = 512, 1.0
    scene = draw_scene(seed, shape=(size, size), library=library, ranges=ranges, pixel_size_angstrom=pixel)
    ((y, x),) = scene.centres_yx
    (depth,) = scene.depths_angstrom
    assert abs(depth) > 100  # or the test could not tell
    image = np.roll(scene.clean / np.median(scene.clean) - 1, (-round(y), -round(x)), (0, 1))
    seen = scipy.fft.rfft2(image).real
    frequency = np.hypot(np.fft.fftfreq(size, pixel)[:, None], np.fft.rfftfreq(size, pixel)[None, :])
    ring = (frequency > 0.05) & (frequency < 0.25)
    phase = np.pi * electron_wavelength_angstrom(300.0) * frequency[ring] ** 2

    def fit(defocus: float) -> float:
        return float(np.corrcoef(seen[ring], -np.sin(phase * defocus + np.arcsin(0.1)))[0, 1])

    # A slab may be as thick as a ninth of the ice at this pixel size: 83 angstrom off at most.
    candidates = np.arange(5000.0, 7000.0, 10.0)
    best = float(candidates[int(np.argmax([fit(one) for one in candidates]))])
    assert best == pytest.approx(6000.0 + depth, abs=90)
