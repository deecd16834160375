"""One view of the passages of every framework, recognised by their attributes, without importing the framework.

                     text           score                      document                 position              tokens
string               itself         -                          -                        -                     -
mapping              text           score                      doc_id                   char_start, char_end  num_tokens
LangChain Document   page_content   metadata relevance_score,  metadata doc_id,         metadata char_start   metadata
                                    score                      source_id, source        or start_index        num_tokens
LlamaIndex           node's         score                      node's ref_doc_id,       node's                node's metadata
NodeWithScore        content                                   else as in LangChain     start_char_idx        num_tokens
Haystack Document    content        score                      meta, as in LangChain    meta char_start or    meta
                                                                                        split_idx_start       num_tokens

With ranking by distance, `distance` of a mapping or metadata is read, and where that is missing the score as above, but never a
`relevance_score`.

A document that a framework split into pages counts as one document a page. A missing `char_end` is the start plus the length of
the text. Any other object is ranked as given and moved unchanged.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from data_schemas.errors import UserError

Ranking = Literal["score", "distance", "given"]

_DOCUMENT_KEYS = ("doc_id", "source_id", "source")
_START_KEYS = ("char_start", "start_index", "split_idx_start")
_MAY_BE_UNKNOWN = ("start_index", "split_idx_start")  # -1 there: the framework did not find the passage in its document
_PAGE_KEYS = ("page", "page_number")


@dataclass(frozen=True)
class PassageView:
    """What reordering reads from a passage; None for what the passage does not have.

    `number` is its given place, from 1; `char_start` and `char_end` are its range in document `doc_id`.
    """

    passage: Any
    number: int
    text: str | None = None
    score: Any = None
    doc_id: str | None = None
    char_start: int | None = None
    char_end: int | None = None
    num_tokens: int | None = None

    @property
    def span(self) -> tuple[str, int, int] | None:
        """Document, start and end, if all are known and agree with the length of the text; else None."""
        if self.doc_id is None or self.char_start is None or self.text is None:
            return None
        end = self.char_start + len(self.text)
        return (self.doc_id, self.char_start, end) if self.char_end in (None, end) else None

    def need_text(self) -> str:
        """The text; UserError if there is none."""
        if self.text is None:
            raise UserError(f"Passage {self.number} has no text: give strings, or a `text` in every passage.")
        return self.text


def view(passage: object, number: int, *, ranking: Ranking = "score") -> PassageView:
    """The view of one passage. Its `score` is the number that `ranking` goes by; None if it is ranked as given.

    Raises UserError for a score that is not a finite number, or an impossible position.
    """
    if isinstance(passage, str):
        return PassageView(passage, number, text=passage)
    if isinstance(passage, Mapping):
        score = _number(passage, passage.get("score"), number, ranking)
        return _view(passage, number, text=passage.get("text"), score=score, meta=passage)
    if _is_node(passage):
        return _node_view(passage, number, ranking)
    if _is_langchain(passage):
        meta: Mapping[str, Any] = passage.metadata or {}  # type: ignore[attr-defined]
        own = meta.get("score") if ranking == "distance" else meta.get("relevance_score", meta.get("score"))
        score = _number(meta, own, number, ranking)
        return _view(passage, number, text=passage.page_content, score=score, meta=meta)  # type: ignore[attr-defined]
    if _is_haystack(passage):
        meta = passage.meta or {}  # type: ignore[attr-defined]
        score = _number(meta, passage.score, number, ranking)  # type: ignore[attr-defined]
        return _view(passage, number, text=passage.content, score=score, meta=meta)  # type: ignore[attr-defined]
    return PassageView(passage, number)


def with_text(passage: Any, text: str, char_start: int, num_tokens: int | None) -> Any:
    """A copy of a mapping or a framework's document with `text`, which starts at `char_start` of its document.

    Other fields stay, except the embedding, and `num_tokens` if it is None.
    """

    def moved(meta: Mapping[str, Any]) -> dict[str, Any]:
        changes: dict[str, Any] = {key: char_start for key in _START_KEYS if key in meta}
        changes |= {"char_end": char_start + len(text)} if "char_end" in meta else {}
        kept = {key: value for key, value in meta.items() if key != "num_tokens"}
        return {**kept, **changes, **({"num_tokens": num_tokens} if "num_tokens" in meta and num_tokens is not None else {})}

    if isinstance(passage, Mapping):
        return {**moved(passage), "text": text}
    if _is_node(passage):
        node = getattr(passage, "node", passage).model_copy(deep=True)
        node.set_content(text)
        node.start_char_idx, node.end_char_idx, node.embedding = char_start, char_start + len(text), None
        node.metadata = moved(node.metadata)
        return passage.model_copy(update={"node": node}) if hasattr(passage, "node") else node
    if _is_langchain(passage):
        return passage.model_copy(update={"page_content": text, "metadata": moved(passage.metadata)})
    return dataclasses.replace(passage, content=text, meta=moved(passage.meta), embedding=None, sparse_embedding=None)


def _is_node(passage: object) -> bool:
    node = getattr(passage, "node", passage)
    return callable(getattr(node, "get_content", None)) and hasattr(node, "ref_doc_id")


def _is_langchain(passage: object) -> bool:
    return hasattr(passage, "page_content") and hasattr(passage, "metadata")


def _is_haystack(passage: object) -> bool:
    return hasattr(passage, "content") and hasattr(passage, "meta") and hasattr(passage, "score")


def _node_view(passage: Any, number: int, ranking: Ranking) -> PassageView:
    node = getattr(passage, "node", passage)
    meta = dict(node.metadata)
    start, end = getattr(node, "start_char_idx", None), getattr(node, "end_char_idx", None)
    meta |= {"char_start": start, "char_end": end} if start is not None else {}
    meta |= {"doc_id": node.ref_doc_id} if node.ref_doc_id is not None else {}
    score = _number(meta, getattr(passage, "score", None), number, ranking)
    return _view(passage, number, text=node.get_content(), score=score, meta=meta)


def _view(passage: object, number: int, *, text: object, score: Any, meta: Mapping[str, Any]) -> PassageView:
    starts = {key: count for key in _START_KEYS if (count := _count(meta, key, number)) is not None}
    document = next((str(meta[key]) for key in _DOCUMENT_KEYS if meta.get(key) is not None), None)
    page = next((meta[key] for key in _PAGE_KEYS if meta.get(key) is not None), None)
    if document is not None and page is not None and starts and "char_start" not in starts:
        document = f"{document}, page {page}"  # loaders that split a file into pages count from each page's start
    return PassageView(
        passage,
        number,
        text=text if isinstance(text, str) else None,
        score=score,
        doc_id=document,
        char_start=next(iter(starts.values()), None),
        char_end=_count(meta, "char_end", number),
        num_tokens=_count(meta, "num_tokens", number),
    )


def _number(meta: Mapping[str, Any], score: Any, number: int, ranking: Ranking) -> Any:
    """The number that the passage is ranked by; None if it has none. UserError if it is not a finite number."""
    if ranking == "given":
        return None
    if ranking == "distance" and meta.get("distance") is not None:
        score = meta["distance"]
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, Real) or not math.isfinite(score):
        raise UserError(f"The {ranking} of passage {number} is {score!r}: give a finite number, or leave all {ranking}s out.")
    return score


def _count(meta: Mapping[str, Any], key: str, number: int) -> int | None:
    value = meta.get(key)
    if value is None or (key in _MAY_BE_UNKNOWN and value == -1):
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise UserError(f"`{key}` of passage {number} is {value!r}: give a whole number, 0 or more, or leave it out.")
    return int(value)
