"""Draw what a pick rests on: which pixels the network's answer hangs on."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from emflow.io.index import StoreRow


def explain_pick(
    picks: Path,
    /,
    *,
    micrograph: str,
    diameter_angstrom: float,
    output: Path,
    number: int = 1,
    model: str = "picker",
) -> None:
    """Draw a pick three times: as it is, with what hiding each patch costs it, and with Grad-CAM.

    Where the colours lie on the particle itself the network looked at the particle; where they lie on an edge
    or a neighbour, the pick rests on those.

    Parameters
    ----------
    picks
        A batch's picks.tsv; picks.star and the images (tiles.tsv) lie beside it.
    micrograph
        Its name, as in picks.tsv.
    diameter_angstrom
        Of the particle, as it was picked with.
    output
        The PNG to write.
    number
        Which of the micrograph's picks, counted from 1, the surest.
    model
        Shipped model's name, or the path of a model folder: the one that picked.
    """
    import numpy as np

    from emflow.cli.progress import say
    from emflow.errors import SettingError
    from emflow.io.explanations import write_explanation
    from emflow.io.locations import find_store
    from emflow.io.model import load_model
    from emflow.io.store import read_image
    from emflow.model_card import PICK
    from emflow.picking import working_image
    from emflow.resources import model_folder

    try:
        from emflow.explanation import explain
    except ImportError:
        raise SettingError("explaining picks needs captum: pip install 'emflow[train]'") from None
    network, card = load_model(model_folder(model), PICK)
    row, table = _read(picks, micrograph)
    if not 1 <= number <= len(table):
        raise SettingError(f"--number {number}: {micrograph} has {len(table)} picks above the floor")
    pick = table.sort_values("rlnAutopickFigureOfMerit", ascending=False, kind="stable").iloc[number - 1]
    image = working_image(
        read_image(find_store(picks.parent, row.store), row.position or 0),
        image_pixel_size_angstrom=row.pixel_size_angstrom or 0.0,
        diameter_angstrom=diameter_angstrom,
        card=card,
    )
    scale = np.array(image.shape) / (row.unbinned_height or 1, row.unbinned_width or 1)
    y, x = np.array([pick["rlnCoordinateY"], pick["rlnCoordinateX"]], dtype=float) * scale
    pixel_size = (row.pixel_size_angstrom or 0.0) * (row.width or 0) / image.shape[1]
    found = explain(network, image, (float(y), float(x)), diameter_angstrom / pixel_size)
    merit = float(pick["rlnAutopickFigureOfMerit"])
    title = f"{micrograph}, pick {number} of {len(table)}: figure of merit {merit:.2f}"
    write_explanation(output, found, title, diameter_angstrom / pixel_size)
    say("explain_pick", f"{title}; {output}")


def _read(picks: Path, micrograph: str) -> tuple["StoreRow", "pd.DataFrame"]:
    """Return where a micrograph's image lies, and its picks."""
    import pandas as pd

    from emflow.errors import SettingError
    from emflow.io.index import StoreRow, accepted, read_index
    from emflow.io.star import read_star
    from emflow.relion import relion_micrograph_name

    images = picks.parent / "tiles.tsv"
    for path in (picks, picks.with_suffix(".star"), images):
        if not path.is_file():
            raise SettingError(f"{path}: there is no such file; name a batch's picks.tsv in results/")
    rows = {row.name: row for row in accepted(read_index(images, StoreRow))}
    if micrograph not in rows:
        shown = ", ".join([*rows][:3]) or "none"
        raise SettingError(f"--micrograph {micrograph}: not in {images}, which has {shown}, ...")
    (table,) = read_star(picks.with_suffix(".star")).values()
    frame = pd.DataFrame(table)
    return rows[micrograph], frame[frame["rlnMicrographName"] == relion_micrograph_name(micrograph)]
