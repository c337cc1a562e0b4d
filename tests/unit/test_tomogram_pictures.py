"""Pictures of tomograms tell classes and pickers apart, and a session's summary counts them so."""

import numpy as np
from PIL import Image

from emflow.cli.summarise_tomograms import _telling_slice
from emflow.tomogram_classes import CLASSES
from emflow.tomogram_pictures import SlicePicks, draw_slice
from emflow.tomogram_summary import SeriesSummary, TomogramSummary, summary_text

SIDE = 100  # a picture of 700 pixels: 7 a voxel
RADIUS = 10.0
COLORS = {each.name: each.color for each in CLASSES}
WHITE = (255, 255, 255)


def _drawn(*picks: SlicePicks) -> np.ndarray:
    picture: Image.Image = draw_slice(
        np.zeros((SIDE, SIDE)),
        np.zeros((SIDE, SIDE), dtype=np.uint8),
        picks=picks,
        radius_voxels=RADIUS,
        pixel_size_angstrom=10.0,
        caption="TS_01",
    )
    return np.asarray(picture)


def _marked(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Return (x, y) in voxels of a colour's pixels in the right one of the two slices."""
    right = picture[:700, 706:]
    y, x = np.nonzero((right == color).all(axis=-1))
    return np.column_stack([x, y]) / 7


def test_classes_have_their_colours_and_the_template_has_squares() -> None:
    picture = _drawn(
        SlicePicks("ribosome", np.array([[30.0, 20.0]])),
        SlicePicks("complex", np.array([[70.0, 20.0]])),
        SlicePicks("ribosome_map", np.array([[50.0, 60.0]]), by_template=True),
    )
    for name, middle in (("ribosome", (30.5, 20.5)), ("complex", (70.5, 20.5))):
        reach = np.linalg.norm(_marked(picture, COLORS[name]) - middle, axis=1)
        assert len(reach) > 100
        assert reach.max() < RADIUS + 0.5
        assert reach.min() > RADIUS - 0.5
    square = np.abs(_marked(picture, WHITE) - (50.5, 60.5))
    inside = square[(square < RADIUS + 1).all(axis=1)]  # the scale bar is white, too
    assert inside.max(axis=1).min() > RADIUS - 0.5
    assert np.linalg.norm(inside, axis=1).max() > 1.35 * RADIUS


def test_the_legend_names_every_mark() -> None:
    legend = slice(700 + 2 * 34, None)
    bare = _drawn()[legend]
    assert (bare == (20, 20, 20)).all()
    some = _drawn(SlicePicks("ribosome", np.zeros((2, 2))))[legend]
    both = _drawn(
        SlicePicks("ribosome", np.zeros((2, 2))), SlicePicks("ribosome", np.zeros((3, 2)), by_template=True)
    )[legend]
    assert (some == COLORS["ribosome"]).all(axis=-1).any()
    assert not (some == WHITE).all(axis=-1).any()
    # The second mark stands after the first's name, in the template's colour whatever its name.
    assert (both == WHITE).all(axis=-1).any()
    np.testing.assert_array_equal(both[:, :150], some[:, :150])


def test_a_class_that_the_segmentation_does_not_know_is_drawn() -> None:
    assert len(_marked(_drawn(SlicePicks("own", np.array([[50.0, 50.0]]))), WHITE)) > 100


def test_the_summary_counts_by_class_and_picker() -> None:
    series = [
        SeriesSummary("TS_01", 14, particles_by_class={"ribosome": 10, "mine": 4}),
        SeriesSummary("TS_02", 2, particles_by_class={"ribosome": 2}),
    ]
    summary = TomogramSummary(
        "s", series, particles_by_class={"ribosome": 12, "mine": 4}, found_by_template=["mine"]
    )
    text = summary_text(summary, [])
    assert "  16 particles from 2 tomograms\n" in text
    assert "    ribosome: 12 in 2 tomograms (segmentation)\n" in text
    assert "    mine: 4 in 1 tomogram (template)\n" in text
    assert summary.to_dict()["found_by_template"] == ["mine"]


def test_the_summary_tells_each_note_once_with_the_series_that_it_is_of() -> None:
    notes = {f"TS_{n}": ["its order is a guess"] for n in range(1, 8)}
    notes["TS_2"] = ["no exposure is known", *notes["TS_2"]]
    text = summary_text(TomogramSummary("s", [], notes=notes), [])
    assert text.index("TS_1, TS_2, TS_3, TS_4, TS_5 and 2 more: its order is a guess\n") < text.index(
        "    TS_2: no exposure is known\n"
    )
    assert "notes" not in summary_text(TomogramSummary("s", []), [])
    many = {"TS_1": [f"note {n}" for n in range(7)]}
    assert "    ... and 2 more; see summary.json\n" in summary_text(TomogramSummary("s", [], notes=many), [])


def test_the_slice_that_is_drawn_has_most_picks() -> None:
    """Between two distant ones there is nothing to see."""

    def telling(*z: float) -> int:
        return _telling_slice(np.array([[5.0, 5.0, one] for one in z]).reshape(-1, 3), 100, 14.0)

    assert telling() == 50
    assert telling(20, 80) in (20, 80)
    assert telling(10, 60, 64, 70) == 64
    assert telling(-3, -2) == 0
