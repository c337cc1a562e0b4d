"""STAR files: read through starfile, written byte for byte the same every time.

A table is a ``pandas.DataFrame`` where the file has a loop, and a ``dict`` where it has a list of values.
"""

from emflow.io.star.reading import TextTable, iterate_star_text, read_star, read_star_text
from emflow.io.star.relion_micrographs import RelionMicrograph, read_relion_micrographs
from emflow.io.star.writing import Pieces, Table, float_cells, star_rows, star_text, write_star

__all__ = [
    "Pieces",
    "RelionMicrograph",
    "Table",
    "TextTable",
    "float_cells",
    "iterate_star_text",
    "read_relion_micrographs",
    "read_star",
    "read_star_text",
    "star_rows",
    "star_text",
    "write_star",
]
