"""Held-out split by work, decided before anything else touches a document.

A *work* is the book or package that a document is an edition or a part of. Splitting by work keeps two chapters of one
book on the same side. A record of a file is the work of its `work`, else of its `id` or its text, never of its place in the file.
"""

import hashlib
from typing import Literal

Split = Literal["train", "heldout"]


def split_of(work: str, heldout_fraction: float, seed: int) -> Split:
    """Side of `work`: a pure function of its name and the seed, so adding documents never moves another one.

    `heldout_fraction` in [0, 1] is the expected share of works (not of documents) held out.
    """
    digest = hashlib.sha256(f"{seed}\x00{work}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    return "heldout" if position < heldout_fraction else "train"
