"""Text out of order under labels, and a trace of the true order at the end.

paragraph_order takes one document. shuffled_chunks mixes the chunks of several, each in its own order, and asks for the chain of each
(Untie the Knots, Tian et al. 2024, arXiv 2409.04774).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tasks.retrieval.draft import Draft, NotMade, Turn
from tasks.retrieval.families.names import digits, distinct, syllables
from tasks.retrieval.families.request import Request
from tasks.retrieval.stretches import pieces
from tasks.retrieval.text_supply import Taken

_FEWEST, _MOST = 4, 9  # paragraphs
_SOURCES, _FEWEST_CHUNKS, _MOST_CHUNKS = 3, 3, 5
_LEAST_CHARS = 24  # of a piece


def paragraph_order(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    number = int(rng.integers(_FEWEST, _MOST + 1))
    labels, shown = _labels(number, request, rng), rng.permutation(number).tolist()
    taken = request.supply.within(num_chars)
    if not taken:
        raise NotMade("no document long enough for its paragraphs")
    parts = _parts(request.supply.text(taken[0]), number)
    before, places = _labelled([(f"[[{labels[i]}]]", parts[i]) for i in shown])
    evidence = dict(zip(shown, places, strict=True))[0]
    turn = Turn(f"[[{' '.join(sorted(labels))}]] =>", " " + " > ".join(labels), evidence)
    return _draft(request, taken, before, (turn,))


def shuffled_chunks(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    numbers = rng.integers(_FEWEST_CHUNKS, _MOST_CHUNKS + 1, _SOURCES).tolist()
    labels = _labels(sum(numbers), request, rng)
    order = rng.permutation(np.repeat(np.arange(_SOURCES), numbers)).tolist()
    asked = rng.permutation(_SOURCES).tolist()
    taken = request.supply.within(num_chars // _SOURCES, _SOURCES)
    if len(taken) < _SOURCES:
        raise NotMade("too few documents long enough for its chunks")
    chunks = [_parts(request.supply.text(one), n) for one, n in zip(taken, numbers, strict=True)]
    chains = [[labels.pop() for _ in range(n)] for n in numbers]
    had = [0] * _SOURCES
    shown, keys = [], []
    for which in order:
        shown.append((f"({chains[which][had[which]]})", chunks[which][had[which]]))
        keys.append((which, had[which]))
        had[which] += 1
    before, places = _labelled(shown)
    place_of = dict(zip(keys, places, strict=True))
    turns = [Turn(f"({chains[i][0]}) >", " " + " > ".join(chains[i][1:]), place_of[i, 1]) for i in asked]
    return _draft(request, taken, before, tuple(turns))


def _draft(request: Request, taken: list[Taken], before: str, turns: tuple[Turn, ...]) -> Draft:
    doc_ids = tuple(request.supply.documents[one.document].doc_id for one in taken)
    spare = request.supply.without(taken).passage(sum(one.num_chars for one in taken))
    return Draft(before + "\n\n", spare, 0, doc_ids, turns, taken=tuple(taken))


def _parts(text: str, number: int) -> list[str]:
    found = pieces(text, number)
    if min(map(len, found)) < _LEAST_CHARS:
        raise NotMade("too short for its pieces")
    return found


def _labels(number: int, request: Request, rng: np.random.Generator) -> list[str]:
    if not request.symbols:
        raise NotMade("the tokenizer cannot write the labels")
    return distinct(partial(syllables, rng, 2) if "letters" in request.symbols else partial(digits, rng), number)


def _labelled(shown: list[tuple[str, str]]) -> tuple[str, list[int]]:
    """The pieces under their labels, and the characters at which each label begins."""
    places, written = [], ""
    for label, piece in shown:
        written += "\n\n" if written else ""
        places.append(len(written))
        written += f"{label}\n{piece}"
    return written, places
