"""The held-out documents that evaluation looks at, as tokens, in an order that nobody chose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

_SENTENCE_ENDS = frozenset(".!?")


@dataclass(frozen=True)
class HeldOutDocument:
    """`token_ids` int32 [tokens]; `is_boundary` bool [tokens]: a line or a sentence ends with this token.

    `num_leading` counts the special tokens (BOS) that the tokenizer put in front.
    """

    doc_id: str
    token_ids: np.ndarray
    is_boundary: np.ndarray
    num_leading: int


def read_heldout(documents: Path, min_bytes: int) -> Iterator[tuple[str, str]]:
    """(doc_id, text) of each held-out document of at least `min_bytes` bytes, ordered by the hash of its id.

    Args:
        documents: a `documents.parquet`.
        min_bytes: documents below it are passed over unread: a byte is at most one token, so a document of fewer bytes
            than a window has tokens can never fill that window.
    """
    filters = [("split", "=", "heldout"), ("num_bytes", ">=", min_bytes)]
    doc_ids: list[str] = pq.read_table(documents, columns=["doc_id"], filters=filters)["doc_id"].to_pylist()
    doc_ids.sort(key=lambda doc_id: hashlib.sha256(doc_id.encode()).digest())
    table = pq.read_table(documents, columns=["doc_id", "text"], filters=filters)
    row_of = {doc_id: row for row, doc_id in enumerate(table["doc_id"].to_pylist())}
    for doc_id in doc_ids:
        yield doc_id, table["text"][row_of[doc_id]].as_py()


def tokenize(doc_id: str, text: str, tokenizer: Any) -> HeldOutDocument:
    """Tokens of a whole document, with BOS where the tokenizer adds one, without EOS."""
    encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    special = np.asarray(encoding["special_tokens_mask"], dtype=bool)
    if special.all():
        return HeldOutDocument(doc_id, np.empty(0, np.int32), np.empty(0, bool), 0)
    first, last = int(np.argmin(special)), len(special) - int(np.argmin(special[::-1]))
    is_boundary = [_ends_unit(text, end) for _, end in encoding["offset_mapping"][:last]]
    return HeldOutDocument(
        doc_id, np.asarray(encoding["input_ids"][:last], dtype=np.int32), np.asarray(is_boundary, dtype=bool), first
    )


def _ends_unit(text: str, end: int) -> bool:
    if end == 0:
        return False
    return text[end - 1] == "\n" or (text[end - 1] in _SENTENCE_ENDS and text[end : end + 1].isspace())


def select_documents(
    texts: Iterable[tuple[str, str]], tokenizer: Any, *, min_tokens: int, num_documents: int, haystack_tokens: int
) -> list[HeldOutDocument]:
    """Tokenize `texts` in order until `num_documents` have `min_tokens` tokens and all together `haystack_tokens`.

    Shorter documents met on the way are returned too: they serve as haystack.
    """
    chosen: list[HeldOutDocument] = []
    num_long = num_tokens = 0
    for doc_id, text in texts:
        if num_long >= num_documents and num_tokens >= haystack_tokens:
            break
        document = tokenize(doc_id, text, tokenizer)
        chosen.append(document)
        num_long += len(document.token_ids) >= min_tokens
        num_tokens += len(document.token_ids)
    return chosen
