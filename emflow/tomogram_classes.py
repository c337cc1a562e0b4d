"""The classes that a tomogram's voxels are told apart by, with the colours they are shown in."""

import enum
from dataclasses import dataclass

NOT_LABELLED = 255
"""The value of a voxel that nobody has labelled: losses and scores leave it out."""


class Label(enum.IntEnum):
    """The classes, by their value in a label volume."""

    BACKGROUND = 0
    MEMBRANE = 1
    RIBOSOME = 2
    FILAMENT = 3  # microtubule or actin
    GOLD = 4
    CARBON = 5
    VOID = 6  # outside the ice or the lamella
    COMPLEX = 7  # other compact complexes


@dataclass(frozen=True)
class LabelClass:
    """What a value of a label volume means, and its colour (red, green, blue; 0 to 255)."""

    value: int
    name: str
    color: tuple[int, int, int]


# After Okabe and Ito: told apart by all kinds of colour vision.
_COLORS = {
    Label.BACKGROUND: (0, 0, 0),
    Label.MEMBRANE: (240, 228, 66),
    Label.RIBOSOME: (86, 180, 233),
    Label.FILAMENT: (0, 158, 115),
    Label.GOLD: (213, 94, 0),
    Label.CARBON: (150, 110, 70),
    Label.VOID: (70, 70, 100),
    Label.COMPLEX: (204, 121, 167),
}
CLASSES = tuple(LabelClass(label.value, label.name.lower(), _COLORS[label]) for label in Label)
CLASS_NAMES = tuple(each.name for each in CLASSES)
