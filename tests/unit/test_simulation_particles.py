"""The simulator's particles: shapes, splits, projections, places, atomic models."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emflow.errors import BadInputError, SettingError
from emflow.simulation import ParticleLibrary, SimulationRanges, Structure
from emflow.simulation.atoms import structure_from_atoms
from emflow.simulation.families import FAMILIES, SYMMETRY_ORDERS
from emflow.simulation.frequencies import Frequencies
from emflow.simulation.library import rotation_matrices, splat
from emflow.simulation.particles import Placed, _place_views, _project_each, in_discs, mark_discs
from emflow.simulation.placement import draw_directions, place
from emflow.simulation.shapes import procedural_structure


def test_training_and_evaluation_share_no_shape() -> None:
    assert not set(SYMMETRY_ORDERS["train"]) & set(SYMMETRY_ORDERS["held_apart"])
    train = [procedural_structure("train", seed) for seed in range(12)]
    apart = [procedural_structure("held_apart", seed) for seed in range(12)]
    for one in train:
        for other in apart:
            same_size = len(one.weights) == len(other.weights)
            assert not (same_size and np.allclose(one.positions_angstrom, other.positions_angstrom, atol=1))
    assert not {s.name for s in train} & {s.name for s in apart}


def test_a_library_starts_at_any_seed() -> None:
    whole = ParticleLibrary("held_apart", procedural=4)
    tail = ParticleLibrary("held_apart", procedural=2, first=2)
    assert [tail.structure(i).name for i in (0, 1)] == [whole.structure(i).name for i in (2, 3)]
    np.testing.assert_array_equal(tail.structure(1).weights, whole.structure(3).weights)


def test_every_family_is_drawn_and_has_its_size() -> None:
    limits = {family.name: family.diameter_angstrom for family in FAMILIES}
    names = set()
    for seed in range(60):
        structure = procedural_structure("train", seed)
        family = structure.name.split("-")[0]
        names.add(family)
        low, high = limits[family]
        # What a family is asked for is a reach; the diameter that is measured leaves 2 % outside.
        assert 0.5 * low < structure.diameter_angstrom < 1.3 * high
        centre = np.average(structure.positions_angstrom, axis=0, weights=np.abs(structure.weights))
        assert np.abs(centre).max() < 0.01 * structure.diameter_angstrom
        radius = np.linalg.norm(structure.positions_angstrom, axis=1)
        inside = radius <= structure.diameter_angstrom / 2
        assert np.abs(structure.weights[inside]).sum() >= 0.98 * np.abs(structure.weights).sum()
    assert len(names) >= 8


def test_refusals() -> None:
    with pytest.raises(ValueError, match="split"):
        ParticleLibrary("test")
    with pytest.raises(ValueError, match="split"):
        procedural_structure("test", 0)
    with pytest.raises(ValueError, match="no structures"):
        ParticleLibrary("train", procedural=0)


def test_a_wanted_diameter_takes_a_particle_that_may_be_rescaled_to_it() -> None:
    library = ParticleLibrary("train", procedural=60)
    rng = np.random.default_rng(0)
    for wanted in (120.0, 200.0):
        factors = [wanted / library.structure(library.draw(rng, wanted)).diameter_angstrom for _ in range(8)]
        assert all(1 / 1.3 < factor < 1.3 for factor in factors)


def test_rotations_put_the_direction_on_the_axis_of_view() -> None:
    rng = np.random.default_rng(1)
    directions = draw_directions(rng, 50, None)
    matrices = rotation_matrices(directions, rng.random(50) * 6)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", matrices, directions)[:, 2], 1, atol=1e-12)
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-12)


def test_preferred_directions_have_the_mean_cosine_of_their_kappa() -> None:
    rng = np.random.default_rng(2)
    axis = np.array([[0.6, 0.0, 0.8]])
    cosines = draw_directions(rng, 20000, (axis, 5.0)) @ axis[0]
    # von Mises-Fisher on the sphere: coth(kappa) - 1 / kappa.
    assert cosines.mean() == pytest.approx(1 / math.tanh(5.0) - 1 / 5.0, abs=0.005)
    assert abs(draw_directions(rng, 20000, None).mean(0)).max() < 0.02


def test_splat_keeps_weight_and_centre() -> None:
    images = torch.zeros((2, 20, 30))
    x, y = torch.tensor([[5.25, 20.0, 40.0]] * 2), torch.tensor([[7.5, 3.0, 3.0]] * 2)
    x[0] = -5.0
    splat(images, x, y, torch.tensor([2.0, 1.0, 5.0]))  # the last lies outside, and all of the first image
    assert not images[0].any()
    target = images[1].numpy()
    assert target.sum() == pytest.approx(3.0)
    rows, columns = np.indices(target.shape)
    assert (target * rows).sum() / 3 == pytest.approx((2 * 7.5 + 3) / 3)
    assert (target * columns).sum() / 3 == pytest.approx((2 * 5.25 + 20) / 3)


def test_places_are_exact_on_canvases_of_more_pixels_than_single_precision_counts() -> None:
    side = 4110  # 16.9 million pixels
    image = torch.zeros((1, side, side))
    splat(image, torch.tensor([[side - 4.0]]), torch.tensor([[side - 5.0]]), torch.ones(1))
    splat(image, torch.tensor([[side - 7.0]]), torch.tensor([[side - 5.0]]), torch.ones(1))
    assert image.nonzero()[:, 1:].tolist() == [[side - 5, side - 7], [side - 5, side - 4]]
    junk = torch.zeros((side, side), dtype=torch.bool)
    mark_discs(junk, np.array([[side - 5.0, side - 4.0], [side - 5.0, side - 7.0]]), 0.5)
    assert junk.nonzero().tolist() == [[side - 5, side - 7], [side - 5, side - 4]]


def projected(library: ParticleLibrary, placed: Placed, pixel: float, shape: tuple[int, int]) -> torch.Tensor:
    spectrum = _project_each(library, placed, pixel, Frequencies(shape, torch.device("cpu")))
    return torch.fft.irfft2(spectrum, s=shape)


@pytest.mark.parametrize("size", [18.0, 24.0, 31.0, 43.0])
def test_kept_projections_equal_fresh_ones(size: float) -> None:
    library = ParticleLibrary("train", procedural=8)
    rng = np.random.default_rng(3)
    for index in (0, 3, 5):
        diameter = library.structure(index).diameter_angstrom
        centres, angles = 64 + rng.random((1, 2)), rng.random(1) * 6
        placed = Placed(index, diameter, centres, library.directions[5:6], angles)
        kept = torch.zeros((128, 128))
        _place_views(kept, library, placed, diameter / size)
        fresh = projected(library, placed, diameter / size, kept.shape)
        assert torch.corrcoef(torch.stack([kept.ravel(), fresh.ravel()]))[0, 1] > 0.99
        # Volt angstrom times the pixels' area is all the potential there is.
        total = library.structure(index).weights.sum() / (diameter / size) ** 2
        assert float(fresh.sum()) == pytest.approx(total, rel=1e-3)
        assert float(kept.sum()) == pytest.approx(total, rel=0.02)


def test_rescaled_particles_keep_their_potential_in_volt() -> None:
    # Of the same matter, a particle twice as wide is twice as thick, on four times the area.
    library = ParticleLibrary("train", procedural=4)
    diameter = library.structure(0).diameter_angstrom
    sums = []
    where, still = np.array([[80.0, 80.0]]), np.zeros(1)
    for size in (diameter, 2 * diameter):
        kept = torch.zeros((160, 160))
        placed = Placed(0, size, where, library.directions[4:5], still)
        _place_views(kept, library, placed, diameter / 20)
        fresh = projected(library, placed, diameter / 20, kept.shape)
        sums += [float(kept.sum()), float(fresh.sum())]
    assert sums[2] == pytest.approx(8 * sums[0], rel=0.02)
    assert sums[3] == pytest.approx(8 * sums[1], rel=1e-3)


def test_places_keep_their_distance() -> None:
    rng = np.random.default_rng(4)

    def right_half(pixels_yx: NDArray[np.int64]) -> NDArray[np.bool_]:
        return pixels_yx[:, 1] >= 150

    centres = place(rng, (200, 300), 400, 12.0, right_half)
    assert 50 < len(centres) <= 400
    assert centres.min() >= 0
    assert (centres <= [199, 150]).all()
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=2) + 1e9 * np.eye(len(centres))
    assert distances.min() > 12.0
    crowded = place(rng, (200, 300), 400, 12.0, right_half, free_fraction=0.5)
    assert len(crowded) > len(centres)
    assert len(place(rng, (50, 50), 0, 5.0, right_half)) == 0
    assert len(place(rng, (50, 50), 9, 5.0, lambda pixels: np.ones(len(pixels), dtype=bool))) == 0


def test_discs_are_marked_as_points_are_told() -> None:
    centres = np.random.default_rng(6).uniform(-20, 120, (12, 2))
    junk = torch.zeros((90, 100), dtype=torch.bool)
    mark_discs(junk, centres, 9.5)
    pixels = np.stack(np.indices(junk.shape), -1).reshape(-1, 2)
    told = in_discs(pixels, centres, 9.5).reshape(junk.shape)
    assert 0.05 < told.mean() < 0.9
    assert (told != junk.numpy()).sum() <= 1
    assert not in_discs(pixels, centres[:0], 9.5).any()


def test_ranges_can_be_stripped_of_contaminants() -> None:
    clean = SimulationRanges().clean()
    names = ("ice_crystal", "ethane", "carbon", "foil", "aggregate", "bead", "crack", "beam_edge")
    assert all(getattr(clean, f"{name}_probability") == 0 for name in names)
    assert clean.defocus_angstrom == SimulationRanges().defocus_angstrom


def test_atoms_scatter_more_than_the_ice_they_displace() -> None:
    positions = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    structure = structure_from_atoms("two", positions, np.full(2, 2.509), np.array([False, True]))
    # Carbon and a hydrogen: 47.878 * (2.509 + 0.529) V angstrom^3, less 4.5 V of 17.3 and 14.1 angstrom^3.
    np.testing.assert_allclose(structure.weights, [145.45 - 77.85, 145.45 - 63.45], atol=0.02)
    assert not structure.rescalable
    with pytest.raises(ValueError, match="no atoms"):
        structure_from_atoms("none", np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=bool))


def test_large_models_are_gathered() -> None:
    rng = np.random.default_rng(5)
    positions = rng.random((60_000, 3)) * 100
    structure = structure_from_atoms("box", positions, np.full(60_000, 2.5), np.zeros(60_000, dtype=bool))
    assert len(structure.weights) < 60_000
    one = structure_from_atoms("one", positions[:1], np.full(1, 2.5), np.zeros(1, dtype=bool))
    assert structure.weights.sum() == pytest.approx(60_000 * one.weights.sum(), rel=1e-4)


PDB_LINE = "ATOM  {0:5d}  CB  ALA A{0:4d}    {1:8.3f}{2:8.3f}{2:8.3f}  1.00 10.00           C"


def pdb_text(count: int) -> str:
    lines = [PDB_LINE.format(i + 1, 4.0 * i, 0.0) for i in range(count)]
    return "\n".join([*lines, "END", ""])


def test_atomic_models_are_read(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    from emflow.io.atomic_models import read_atomic_model, read_atomic_models

    (tmp_path / "b.pdb").write_text(pdb_text(5))
    (tmp_path / "below").mkdir()
    with gzip.open(tmp_path / "below" / "a.pdb.gz", "wt") as stream:
        stream.write(pdb_text(11))
    (tmp_path / "notes.txt").write_text("no model")
    found = read_atomic_models(tmp_path)
    assert [(structure.name, path.name) for structure, path in found] == [("a", "a.pdb.gz"), ("b", "b.pdb")]
    first: Structure = found[0][0]
    assert len(first.weights) == 11
    # Eleven atoms 4 angstrom apart, with a blob's sigma of 1 angstrom on either side.
    assert first.diameter_angstrom == pytest.approx(42.0, abs=0.1)
    (tmp_path / "bad.pdb").write_text("nothing\n")
    with pytest.raises(BadInputError, match=r"bad\.pdb"):
        read_atomic_model(tmp_path / "bad.pdb")


def test_no_models(tmp_path: Path) -> None:
    from emflow.io.atomic_models import read_atomic_models

    with pytest.raises(SettingError, match="not a folder"):
        read_atomic_models(tmp_path / "absent")
    with pytest.raises(SettingError, match="no file ending in"):
        read_atomic_models(tmp_path)


def test_a_real_protein_has_its_size(shared_data: Path) -> None:
    pytest.importorskip("gemmi")
    from emflow.io.atomic_models import read_atomic_model

    folder = shared_data / "data" / "6_models_maps"
    apoferritin = read_atomic_model(folder / "cryolike" / "apoferritin_ca_apo_sym.pdb.gz")
    assert apoferritin.diameter_angstrom == pytest.approx(125, abs=10)
    # 24 chains of some 20 kDa: 1.21 angstrom^3 a dalton, in excess of ice by some 3.5 V.
    assert apoferritin.weights.sum() == pytest.approx(480_000 * 1.21 * 3.5, rel=0.2)
