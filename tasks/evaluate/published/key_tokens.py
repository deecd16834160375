"""LongPPL's key tokens as published (Fang et al. 2024, arXiv 2410.23771; PKU-ML/LongPPL, Apache-2.0).

An evaluator predicts each token twice: after the whole text before it, and after a short context, which is shared by the tokens
of a step. A key token gains more than 2 nats from the whole text, and its loss with it is below 2 nats. The tokens of the
evaluated model that lie in the key tokens' characters are scored, so the two tokenizers may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHORT_CONTEXT, STEP = 4096, 1024
LEAST_GAIN, MOST_LOSS = 2.0, 2.0
NUM_DOCUMENTS, LEAST_TOKENS, MOST_TOKENS = 50, 16384, 32768

Span = tuple[int, int]


@dataclass(frozen=True)
class ShortWindow:
    """Tokens start..end-1 of the text; those from `first` on are predicted after the short context in front of them."""

    start: int
    first: int
    end: int


def short_windows(num_tokens: int, *, short: int = SHORT_CONTEXT, step: int = STEP) -> list[ShortWindow]:
    """The windows that give each token from number `short` on its short context; none in a text that is not longer."""
    return [
        ShortWindow(start, start + short, min(start + short + step, num_tokens)) for start in range(0, num_tokens - short, step)
    ]


def is_key(full_loss: np.ndarray, short_loss: np.ndarray) -> np.ndarray:
    """bool [tokens] from two losses in nats, each [tokens]."""
    return np.asarray((short_loss - full_loss > LEAST_GAIN) & (full_loss < MOST_LOSS))


def key_spans(offsets: Sequence[Span], keys: Sequence[int]) -> list[Span]:
    """Characters of the key tokens, by the evaluator's `offsets`; tokens that touch become one span."""
    spans: list[Span] = []
    for start, end in (offsets[key] for key in keys):
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def scored_tokens(offsets: Sequence[Span], spans: Sequence[Span]) -> list[int]:
    """Indices of the evaluated model's tokens that lie wholly in a span; the text's first token has nothing in front of it.

    (The authors' code takes the loss of the last token for it.)
    """
    found: list[int] = []
    token = span = 0
    while token < len(offsets) and span < len(spans):
        (start, end), (first, last) = offsets[token], spans[span]
        if start >= first and end <= last:
            found += [token] if token else []
            token += 1
        elif start < first:
            token += 1
        else:
            span += 1
    return found
