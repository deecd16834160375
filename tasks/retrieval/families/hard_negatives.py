"""Chunks of one document among passages of others that are most like them, so what comes next must be told from far back.

NExtLong (Gao et al. 2025, arXiv 2501.12766) finds the negatives with a dense index; here it is BM25, which needs no model. The loss
weighs the document's own chunks from the second one on; there is no question.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, islice

import numpy as np

from tasks.retrieval.draft import Draft, NotMade
from tasks.retrieval.families.request import Request
from tasks.retrieval.stretches import pieces

_FEWEST, _MOST = 4, 7  # chunks
_OWN_SHARE = 0.4  # of the characters: at most this much is the document's own
_LEAST_SHARE = 0.1
_LEAST_CHARS = 24  # of a chunk
_BETWEEN = "\n\n"
_NUM_SPARE = 4  # passages to fill the length with


def hard_negatives(request: Request, num_chars: int, rng: np.random.Generator) -> Draft:
    number = int(rng.integers(_FEWEST, _MOST + 1))
    num_own = min(int(_OWN_SHARE * num_chars), request.supply.left_in_document)
    if num_own < max(_LEAST_SHARE * num_chars, number * _LEAST_CHARS):
        raise NotMade("no document long enough for its chunks")
    doc_ids = request.supply.doc_ids(num_own)
    chunks = pieces(request.supply.passage(num_own), number)
    each = (num_chars - num_own) // (number - 1)
    before = ""
    spans: list[tuple[int, int]] = []
    negatives: list[str] = []
    others: list[str] = []
    for place, chunk in enumerate(chunks[:-1]):
        if place:
            spans.append((len(before), len(before) + len(chunk)))
        before += chunk + _BETWEEN
        stop = len(before) + each
        for doc_id, passage in _new(request.negatives.like(chunk, doc_ids), negatives):
            shown = passage[: stop - len(before)]
            before += shown + _BETWEEN
            negatives.append(passage)
            others.append(doc_id)
            if len(before) >= stop:
                break
        else:
            raise NotMade("too few passages of other documents")
    spare = list(islice(_new(request.negatives.like(chunks[-1], doc_ids), negatives), _NUM_SPARE))
    starts = accumulate((len(passage) + len(_BETWEEN) for _, passage in spare), initial=0)
    return Draft(
        before=before,
        spare=_BETWEEN.join(passage for _, passage in spare),
        num_used=num_own,
        doc_ids=tuple(dict.fromkeys((*doc_ids, *others))),
        after=_BETWEEN + chunks[-1],
        after_weighs=True,
        answers=tuple(spans),
        negatives=(*negatives, *(passage for _, passage in spare)),
        spare_from=tuple((start, doc_id) for start, (doc_id, _) in zip(starts, spare, strict=False)),
    )


def _new(found: Iterator[tuple[str, str]], had: list[str]) -> Iterator[tuple[str, str]]:
    for doc_id, passage in found:
        if passage not in had:
            yield doc_id, passage
