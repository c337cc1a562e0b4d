"""Structures that training leaves alone: those of a blind test, and those that models are judged by.

They are kept apart by fold and not by name: whoever has learned a relative has seen the particle's look. A
relative is an entry of which a whole chain has the fold of one that is kept apart (SCOP's folds, in brackets
below); a domain within a large chain or complex is none. No list of entries is ever whole, so what a file
says of itself counts as well.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """What is kept apart, and how it is known.

    ``entries`` are PDB entries in lower case, ``words`` a regular expression of what titles and names of
    molecules say, in lower case.
    """

    name: str
    entries: frozenset[str]
    words: str


def _kept(name: str, entries: str, words: str) -> Kept:
    return Kept(name, frozenset(entries.split()), words)


BLIND = (
    # Ntn hydrolases (d.153)
    _kept("20S proteasome", "1pma 1ryp 1iru 1yar 3j9i 3jrm 5le5 6bdf 6rgq", r"proteasome|\bhslv\b"),
    # GHKL ATPases (d.122)
    _kept(
        "Hsp90",
        "1ah6 1byq 1yer 2cg9 2iop 2ior 2ioq 5fwk 5fwl 5fwm 7krj 7kw7 7l7i",
        r"\bhsp ?90|heat shock protein (hsp ?)?90|\bhtpg\b|\bgrp ?94\b|endoplasmin|\btrap-?1\b",
    ),
    # P-loop NTPases (c.37): rings of AAA+ domains, and Get3 (3h84), which has the fold without the ring
    _kept(
        "p97",
        "1e32 1r7r 1s3s 3cf1 3cf2 3cf3 5ftj 5ftk 5ftl 5ftm 5ftn 7jy5 1qvr 3h84",
        r"\bp97\b|valosin|transitional endoplasmic reticulum atpase|\bcdc-?48|\bclpb\b|\bhsp ?104\b|\baaa\+",
    ),
    # TIM barrels with a ferredoxin-like domain (c.1, d.58)
    _kept(
        "RuBisCO",
        "1rcx 1rbl 1rlc 1gk8 1ir1 1ej7 3rub 8ruc 9rub",
        r"rubisco|ribulose(-1,5)?[ -]+(bis|di)phosphate",
    ),
)

JUDGES = (
    # Immunoglobulin-like sandwiches (b.1), as nanobodies are
    _kept("antibody", "1igt 8zpm", r"immunoglobulin|antibody|nanobody"),
    _kept("ribosome", "4v4r 4v5a 3j9g", r"ribosom|\b[357]0s\b"),
    _kept("Zika virus", "5ire 5iz7", r"\bzika|dengue|flavivir"),
    # Ferritin-like (a.25)
    _kept("apoferritin", "2fha 4v1w 6v21 7a4m", r"ferritin"),
    _kept("beta-galactosidase", "1dp0 3j7h 5a1a 6cvm", r"beta-galactosidase"),
)

NAMES = tuple(kept.name for kept in (*BLIND, *JUDGES))


def kept_apart(entry: str, said: str) -> str | None:
    """Return the name of what a structure is kept apart as; None for one that may be learned from.

    Parameters
    ----------
    entry
        Its PDB entry or its file's name.
    said
        Its title, keywords and names of molecules.
    """
    # 4v4r_30S is a part of 4v4r.
    parts = set(re.split(r"[^a-z0-9]+", entry.lower()))
    text = " ".join([*said.lower().split(), entry.lower().replace("_", " ")])
    for kept in (*BLIND, *JUDGES):
        if parts & kept.entries or re.search(kept.words, text):
            return kept.name
    return None
