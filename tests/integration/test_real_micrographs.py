"""The shipped picker on real micrographs with labels: outside data, read where it is and never committed."""

from pathlib import Path

import beta_galactosidase

from emflow.evaluation.picking import log_tries, pick_with_network, score_picker
from emflow.io.model import load_model, shipped_model


def test_the_shipped_picker_finds_the_labelled_particles(shared_data: Path) -> None:
    network, card = load_model(shipped_model("picker"), "pick")
    micrographs = beta_galactosidase.micrographs(shared_data)[:2]
    found = [pick_with_network(one, network, card) for one in micrographs]
    ours = score_picker(micrographs, found, card.threshold)
    baseline = max(
        (score_picker(micrographs, [pick(one) for one in micrographs], None) for _, pick in log_tries()),
        key=lambda scores: scores.lenient_average_precision,
    )
    # Neither structure nor micrographs had any part in training, and the threshold is the card's. Labels were
    # set by hand and by masks: centres are known to a radius, hardly better.
    assert ours.lenient_f1_at_threshold > 0.75
    assert ours.lenient_f1_at_threshold > baseline.lenient_best_f1 - 0.02
    assert ours.lenient_average_precision > baseline.lenient_average_precision + 0.05
