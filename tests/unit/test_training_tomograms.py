"""What segmenter and denoiser learn from: tomograms of thin ice, and slices of those of thick ice."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emflow.io.simulated_tomograms import KeptTomograms
from emflow.simulation import ParticleLibrary
from emflow.training import tomograms
from emflow.training.tomograms import RANGES, SHAPE, THICK_RANGES, THICK_SHAPE, TrainingTomograms

SEEDS = [(3, n) for n in range(200)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Put a ramp along z in the place of a simulation, and keep what was asked for."""
    asked: list[tuple[Any, ...]] = []

    def simulate(number: int, shape: tuple[int, int, int], *, ranges: object, library: object) -> object:
        asked.append((number, shape, ranges, library))
        ramp = np.broadcast_to(np.arange(shape[0], dtype=np.float32)[:, None, None], (shape[0], 4, 4))
        return SimpleNamespace(even=ramp, odd=ramp + 0.5, clean=-ramp, labels=ramp.astype(np.uint8))

    monkeypatch.setattr(tomograms, "simulate_tomogram", simulate)
    return asked


def test_half_of_them_are_slices_of_thick_ice(drawn: list[tuple[Any, ...]]) -> None:
    library = ParticleLibrary("train")
    made = [TrainingTomograms(library)(seed) for seed in SEEDS]
    kinds = {(shape, id(ranges)) for _, shape, ranges, _ in drawn}
    assert kinds == {(SHAPE, id(RANGES)), (THICK_SHAPE, id(THICK_RANGES))}
    thick = [one for one, (_, shape, _, _) in zip(made, drawn, strict=True) if shape == THICK_SHAPE]
    assert 0.4 < len(thick) / len(made) < 0.6
    assert len({number for number, *_ in drawn}) == len(SEEDS)
    starts = [int(one.labels[0, 0, 0]) for one in thick]
    assert min(starts) < 10
    assert max(starts) > THICK_SHAPE[0] - SHAPE[0] - 10
    for one in made:
        # The same slices of all: halves, the clean tomogram and the labels belong together.
        z = one.labels[:, 0, 0].astype(np.float32)
        np.testing.assert_array_equal(np.diff(z), 1)
        assert len(z) == SHAPE[0]
        for volume, expected in ((one.even, z), (one.odd, z + 0.5), (one.clean, -z)):
            assert volume.dtype == np.float16
            np.testing.assert_array_equal(volume[:, 0, 0], expected)


@pytest.mark.usefixtures("drawn")
def test_a_seed_s_tomogram_is_always_the_same() -> None:
    draw = TrainingTomograms(ParticleLibrary("train"))
    for seed in SEEDS[:8]:
        np.testing.assert_array_equal(draw(seed).labels, draw(seed).labels)
    again = [int(draw(seed).labels[0, 0, 0]) for seed in SEEDS]
    assert len(set(again)) > 20


def test_a_smaller_one_is_cut_alike(drawn: list[tuple[Any, ...]]) -> None:
    draw = TrainingTomograms(ParticleLibrary("train"), shape=(24, 32, 32))
    assert {len(draw(seed).labels) for seed in SEEDS[:20]} == {24}
    assert {shape for _, shape, _, _ in drawn} == {(24, 32, 32), (128, 32, 32)}


def test_kept_tomograms_are_not_mixed_up(drawn: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """A folder serves trainings on other particles, other sizes and, one day, of another simulator."""
    libraries = [ParticleLibrary("train"), ParticleLibrary("train", procedural=10)]
    model = libraries[0].structure(0)
    libraries += [ParticleLibrary("train", models=[one]) for one in (model, model.rescaled(1.1))]
    draws = [TrainingTomograms(library) for library in libraries]
    draws.append(TrainingTomograms(libraries[0], (24, 32, 32)))
    for draw in draws:
        made = KeptTomograms(draw, tmp_path)((3, 1))
        np.testing.assert_array_equal(KeptTomograms(draw, tmp_path)((3, 1)).labels, made.labels)
    assert len(drawn) == len(draws) == len(list(tmp_path.iterdir()))
