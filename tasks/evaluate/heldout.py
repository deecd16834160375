"""The held-out documents that evaluation measures, as tokens, in a fixed random order."""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_schemas.documents import document_files
from data_schemas.tables import TURNS
from tasks.tokens.encoding import encoder_of
from tasks.tokens.special_tokens import special_tokens

_SENTENCE_ENDS = frozenset(".!?")
_MISSES = 16  # documents of a work in a row with too few tokens, after which it waits until the others have no more

Split = Literal["heldout", "train"]


@dataclass(frozen=True)
class HeldOutDocument:
    """`token_ids` int32 [tokens]; `is_boundary` bool [tokens]: a line or a sentence ends with this token.

    `num_leading` counts the special tokens in front: 1 with BOS, else 0.
    """

    doc_id: str
    token_ids: np.ndarray
    is_boundary: np.ndarray
    num_leading: int


def read_heldout(
    documents: Path, min_bytes: int, leave_out: Set[str] = frozenset(), split: Split = "heldout"
) -> Iterator[tuple[str, str]]:
    """(doc_id, text) of each document of the split of at least `min_bytes` bytes, ordered by the hash of its id.

    Conversations of instruction data are read only where there is no other such document, as plain text.

    Args:
        documents: folder of the `documents` artifact. Texts are read one at a time.
        min_bytes: shorter documents are skipped unread. A byte is at most one token, so a document of fewer bytes
            than a window has tokens can never fill that window.
        leave_out: ids of documents that are not read.
    """
    place_of = _wanted(documents, min_bytes, leave_out, split)
    for doc_id in sorted(place_of, key=_hash):
        yield doc_id, _text(doc_id, place_of)


def read_works(documents: Path) -> dict[str, str]:
    """{doc_id: the work that it is a part of} of all documents; works are what `corpus.sources` counts as one."""
    tables = [pq.read_table(file, columns=["doc_id", "work"]) for file in document_files(documents)]
    return {row["doc_id"]: row["work"] for table in tables for row in table.to_pylist()}


def _hash(doc_id: str) -> bytes:
    return hashlib.sha256(doc_id.encode()).digest()


def _text(doc_id: str, place_of: Mapping[str, tuple[Path, int]]) -> str:
    file, group = place_of[doc_id]
    table = pq.ParquetFile(file).read_row_group(group, columns=["doc_id", "text"])
    text: str = table.filter(pc.field("doc_id") == doc_id)["text"][0].as_py()
    return text


def _wanted(documents: Path, min_bytes: int, leave_out: Set[str], split: Split) -> dict[str, tuple[Path, int]]:
    """The places of the documents that `read_heldout` reads."""
    files = document_files(documents)
    asks = {file: TURNS in pq.read_schema(file).names for file in files}
    plain = _places([file for file in files if not asks[file]], split, min_bytes, leave_out)
    return plain or _places([file for file in files if asks[file]], split, min_bytes, leave_out)


def _places(files: Iterable[Path], split: str, min_bytes: int, leave_out: Set[str]) -> dict[str, tuple[Path, int]]:
    """The file and row group of each wanted document, by its id."""
    place_of: dict[str, tuple[Path, int]] = {}
    for file in files:
        groups = pq.ParquetFile(file)
        for group in range(groups.num_row_groups):
            table = groups.read_row_group(group, columns=["doc_id", "split", "num_bytes"])
            wanted = table.filter((pc.field("split") == split) & (pc.field("num_bytes") >= min_bytes))
            place_of |= dict.fromkeys((d for d in wanted["doc_id"].to_pylist() if d not in leave_out), (file, group))
    return place_of


def tokenize(doc_id: str, text: str, tokenizer: Any) -> HeldOutDocument:
    """Tokens of a whole document, as training encodes it: literal special tokens are text, BOS as in `SpecialTokens`, no EOS."""
    if not text:
        return HeldOutDocument(doc_id, np.empty(0, np.int32), np.empty(0, bool), 0)
    (encoded,) = encoder_of(tokenizer).encode([text])
    bos = special_tokens(tokenizer).opening
    is_boundary = np.zeros(len(bos) + len(encoded.ids), bool)
    ends = [_ends_unit(text, char) for char in encoded.cut_char[1:].tolist()]
    is_boundary[len(bos) + encoded.cut_token[1:][ends] - 1] = True
    return HeldOutDocument(doc_id, np.concatenate([bos, encoded.ids]), is_boundary, len(bos))


def _ends_unit(text: str, end: int) -> bool:
    if end == 0:
        return False
    return text[end - 1] == "\n" or (text[end - 1] in _SENTENCE_ENDS and text[end : end + 1].isspace())


def select_documents(
    texts: Iterable[tuple[str, str]], tokenizer: Any, *, min_tokens: int, num_documents: int, haystack_tokens: int
) -> list[HeldOutDocument]:
    """Tokenize `texts` in order until `num_documents` have `min_tokens` tokens each and all together have `haystack_tokens`.

    Shorter documents in between are returned too: they serve as haystack.
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


def select_by_work(
    documents: Path, works: Mapping[str, str], tokenizer: Any, *, min_tokens: int, num_documents: int, split: Split
) -> list[HeldOutDocument]:
    """At most `num_documents` of at least `min_tokens` tokens. Each work gives one before any gives a second, and so on.

    Else the order is that of `read_heldout`. Texts are read and tokenized one at a time, until there is enough. So either every work with
    a document this long is among them, or `num_documents` works are. One exception bounds the cost, since only reading a text tells its
    tokens: a work of which 16 documents in a row have enough bytes but too few tokens waits until the other works have no more.

    Args:
        documents: folder of the `documents` artifact.
        works: from `read_works`.
    """
    place_of = _wanted(documents, min_tokens, frozenset(), split)
    left: dict[str, deque[str]] = {}
    for doc_id in sorted(place_of, key=_hash):
        left.setdefault(works[doc_id], deque()).append(doc_id)
    turns = [(False, 0, _hash(doc_ids[0]), work, 0) for work, doc_ids in left.items()]
    heapq.heapify(turns)
    chosen: list[HeldOutDocument] = []
    while turns and len(chosen) < num_documents:
        _, given, _, work, misses = heapq.heappop(turns)
        doc_id = left[work].popleft()
        document = tokenize(doc_id, _text(doc_id, place_of), tokenizer)
        if len(document.token_ids) >= min_tokens:
            chosen.append(document)
            given, misses = given + 1, 0
        else:
            misses += 1
        if left[work]:
            heapq.heappush(turns, (misses >= _MISSES, given, _hash(left[work][0]), work, misses))
    return chosen
