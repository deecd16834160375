"""Single rows: how the sequences in them begin and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.pack.reading import PackedRows

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SHOWN_SEQUENCES = 8
_SNIPPET_TOKENS = 48
_SNIPPET_CHARACTERS = 64


@dataclass(frozen=True)
class SampleSequence:
    """How a sequence of a row begins and ends, as text, or as token ids without a tokenizer."""

    chunk_id: str
    num_tokens: int
    begins: str
    ends: str


@dataclass(frozen=True)
class SampleRow:
    """A row's first sequences; `num_more` are not shown."""

    split: str
    row: int
    num_tokens: int
    sequences: tuple[SampleSequence, ...]
    num_more: int


def sample_row(split: str, rows: PackedRows, index: int, tokenizer: Tokenizer | None) -> SampleRow:
    """How the sequences of row `index` begin and end."""
    row = rows.row(index)
    ends = np.cumsum(row["seq_lengths"])
    sequences = [
        SampleSequence(
            chunk_id,
            int(length),
            _snippet(row["input_ids"][end - length : end][:_SNIPPET_TOKENS], tokenizer, at_end=False),
            _snippet(row["input_ids"][end - length : end][-_SNIPPET_TOKENS:], tokenizer, at_end=True),
        )
        for chunk_id, length, end in zip(rows.chunk_ids(index)[:_SHOWN_SEQUENCES], row["seq_lengths"], ends, strict=False)
    ]
    return SampleRow(split, index, len(row["input_ids"]), tuple(sequences), len(ends) - len(sequences))


def _snippet(ids: np.ndarray, tokenizer: Tokenizer | None, *, at_end: bool) -> str:
    """At most _SNIPPET_CHARACTERS on one line, BOS and EOS included."""
    numbers: list[int] = ids.tolist()
    text = tokenizer.decode(numbers, skip_special_tokens=False) if tokenizer else " ".join(map(str, numbers))
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text[-_SNIPPET_CHARACTERS:] if at_end else text[:_SNIPPET_CHARACTERS]
