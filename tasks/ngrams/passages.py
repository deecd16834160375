"""The place of n-grams in a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.ngrams.word_ngrams import ngram_blocks

_EXAMPLE_CHARACTERS = 200


def first_passage(text: str, shared: np.ndarray, lengths: Sequence[int]) -> str:
    """The first run of overlapping n-grams of `text` whose hashes are in `shared`, cut to 200 characters.

    `shared` must hold a hash of an n-gram of one of `lengths` words.
    """
    spans = []
    for block in (block for num_words in lengths for block in ngram_blocks(text, num_words)):
        found = np.isin(block.hashes, shared)
        spans.append(np.stack([block.starts[found], block.ends[found]], axis=1))
    places = np.concatenate(spans)
    places = places[np.argsort(places[:, 0], kind="stable")]
    start, end = (int(place) for place in places[0])
    for next_start, next_end in places[1:].tolist():
        if next_start > end or end - start >= _EXAMPLE_CHARACTERS:
            break
        end = max(end, next_end)
    return text[start : min(end, start + _EXAMPLE_CHARACTERS)]
