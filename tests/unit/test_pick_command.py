"""The command that picks a batch's particles."""

import numpy as np

from emflow.cli.pick import pick
from emflow.io.index import OK, PickRow, StoreRow, read_index, write_index
from emflow.io.store import StoreWriter


def test_micrographs_picked_at_one_time_give_what_they_give_in_turn(tmp_path, monkeypatch):
    """As on a GPU, whose host works on several."""
    names = [f"m{number}.mrc" for number in range(11)]
    images = np.random.default_rng(0).normal(size=(len(names), 192, 192)).astype(np.float32)
    images[3, 80:100, 80:100] -= 3
    tiles = tmp_path / "tiles.tsv"
    writer = StoreWriter(
        tiles, count=len(names), shape=(192, 192), pixel_size_angstrom=(5.0, 5.0), names=names
    )
    writer.write(0, images[:8])
    writer.write(8, images[8:])
    writer.finish()
    rows = [
        StoreRow(name, OK, "", writer.name, number, 192, 192, 384, 384, 5.0)
        for number, name in enumerate(names)
    ]
    write_index(tiles, rows, StoreRow)
    tables = []
    for at_once in (1, 3):
        monkeypatch.setattr("emflow.cli.pick._at_once", lambda _device, _threads, many=at_once: many)
        output = tmp_path / str(at_once) / "picks.tsv"
        output.parent.mkdir()
        pick(images=tiles, output=output, model="picker_light", diameter_angstrom=120, device="cpu")
        tables.append((output.read_bytes(), output.with_suffix(".star").read_bytes()))
        assert sum(row.candidates or 0 for row in read_index(output, PickRow)) > 11
    assert tables[0] == tables[1]
