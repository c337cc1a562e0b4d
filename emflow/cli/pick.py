"""Pick the particles of one batch: all candidates above a low floor, with their figure of merit."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emflow.cli.progress import say
from emflow.cli.workers import Workers
from emflow.io.claims import Claim
from emflow.io.gpus import take_device
from emflow.io.index import OK, PickRow, StoreRow, accepted, read_index, write_failures, write_index
from emflow.io.locations import find_store
from emflow.io.star import write_star
from emflow.io.store import read_in_turn
from emflow.metadata import Picks
from emflow.relion import relion_micrograph_name
from emflow.resources import model_folder

if TYPE_CHECKING:
    import torch


def pick(
    *,
    images: Path,
    output: Path,
    model: str,
    diameter_angstrom: float,
    minimum_distance_diameters: float = 0.7,
    floor: float = 0.05,
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Write a batch's candidates (picks.star) and their table (picks.tsv).

    Parameters
    ----------
    images
        The batch's tiles.tsv or denoised.tsv.
    output
        The picks.tsv to write; picks.star lies beside it.
    model
        Shipped model's name, or the path of a model folder.
    diameter_angstrom
        Longest diameter of the particle.
    minimum_distance_diameters
        Smallest distance between two picks.
    floor
        Lowest figure of merit that is kept.
    device
        auto, cpu or cuda.
    threads
        CPU threads of the network.
    """
    import torch

    from emflow.familiarity import unfamiliar
    from emflow.io.model import load_model
    from emflow.picking import pick_working_image, working_image

    torch.set_num_threads(threads)
    claim = Claim(output)
    table = read_index(images, StoreRow)
    good = accepted(table)
    chosen = take_device(device)
    network, card = load_model(model_folder(model), "pick")
    network = network.to(chosen)
    say("pick", f"model {model} on {chosen}, diameter {diameter_angstrom:g} A")
    rows: dict[str, PickRow] = {}
    tables: list[pd.DataFrame] = []

    def look(task: tuple[StoreRow, NDArray[np.float32]]) -> tuple[StoreRow, Picks, str]:
        row, image = task
        seen = working_image(
            image,
            image_pixel_size_angstrom=row.pixel_size_angstrom or 0.0,
            diameter_angstrom=diameter_angstrom,
            card=card,
        )
        picks = pick_working_image(
            seen,
            image_pixel_size_angstrom=row.pixel_size_angstrom or 0.0,
            unbinned_shape=(row.unbinned_height or 0, row.unbinned_width or 0),
            diameter_angstrom=diameter_angstrom,
            network=network,
            card=card,
            minimum_distance_diameters=minimum_distance_diameters,
            floor=floor,
            device=chosen,
        )
        return row, picks, unfamiliar(seen, card.training_ranges or {})

    ahead = _read_ahead(images.parent, good)
    at_once = _at_once(chosen, threads)
    looked = map(look, ahead) if at_once == 1 else Workers().in_order(look, ahead, at_once=at_once)
    for row, picks, unlike in looked:
        if unlike:
            say("pick", f"{row.name} is unlike what the model was trained on, check its picks: {unlike}")
        tables.append(_star_rows(row.name, picks))
        rows[row.name] = PickRow(
            name=row.name,
            status=OK,
            candidates=len(picks),
            suggested_threshold=card.threshold,
            checksum=_checksum(picks),
            unfamiliar=unlike,
        )
        if len(rows) % max(1, len(good) // 10) == 0 or len(rows) == len(good):
            say("pick", f"{len(rows)}/{len(good)} micrographs, {sum(map(len, tables))} candidates")
    everything = pd.concat(tables) if tables else _star_rows("", _NO_PICKS)
    claim.check()
    write_star(output.with_suffix(".star"), {"picks": everything})
    finished = [rows.get(row.name) or PickRow(row.name, row.status, row.reason) for row in table]
    write_failures(output.parent, finished)
    write_index(output, finished, PickRow)
    claim.release()


_NO_PICKS = Picks(np.empty(0), np.empty(0), np.empty(0))


def _at_once(device: "torch.device", threads: int) -> int:
    """Return how many micrographs are worked on at one time.

    On a CPU one takes all threads; a GPU would wait most of the time for one thread's work on the host.
    """
    return 1 if device.type == "cpu" else threads


def _read_ahead(folder: Path, rows: list[StoreRow]) -> Iterator[tuple[StoreRow, NDArray[np.float32]]]:
    """Yield rows with their images, the next one being read while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [
            pool.submit(read_in_turn, find_store(folder, row.store), row.position or 0) for row in rows[:2]
        ]
        for position, row in enumerate(rows):
            image = waiting.pop(0).result()
            if position + 2 < len(rows):
                ahead = rows[position + 2]
                waiting.append(
                    pool.submit(read_in_turn, find_store(folder, ahead.store), ahead.position or 0)
                )
            yield row, image


def _star_rows(name: str, picks: Picks) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rlnMicrographName": [relion_micrograph_name(name)] * len(picks),
            "rlnCoordinateX": np.round(picks.x, 3),
            "rlnCoordinateY": np.round(picks.y, 3),
            "rlnAutopickFigureOfMerit": np.round(picks.figure_of_merit, 6),
        }
    )


def _checksum(picks: Picks) -> str:
    values = np.stack([picks.x, picks.y, picks.figure_of_merit]).round(6).astype("<f8")
    return hashlib.sha256(values.tobytes()).hexdigest()
