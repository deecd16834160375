"""On workers: retrieval documents from the training documents of one part of the corpus."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_schemas.params import RetrievalParams
from data_schemas.parts import Parts
from data_schemas.retrieval_params import FAMILIES, RetrievalFamily
from data_schemas.tables import RETRIEVAL, TURNS
from tasks.retrieval.chat import ChatFrame
from tasks.retrieval.draft import Draft, NotMade
from tasks.retrieval.families.negatives import Negatives
from tasks.retrieval.families.registry import MAKERS
from tasks.retrieval.families.request import Request
from tasks.retrieval.fitting import Fitted, fit
from tasks.retrieval.rendering import Renderer
from tasks.retrieval.settings import name_cost, writable_signs, writable_symbols
from tasks.retrieval.text_supply import SourceText, TextSupply
from tasks.retrieval.weights import loss_weights, reached_share
from tasks.tokens.encoding import Encoder
from tasks.tokens.special_tokens import SpecialTokens

TOKENIZER_FILE = "tokenizer.json"
_SAMPLED_CHARS, _SAMPLED_A_DOCUMENT = 1_000_000, 20_000  # from which tokens are estimated
_MARGIN = 1.05  # documents to make for each that the estimate asks for: pack takes as many as the share needs
_COLUMNS = ["doc_id", "text", "licence", "language", "split"]
_ROWS_AT_ONCE = 16
_PASSAGE_SHARE = 16  # passages of other documents are a sixteenth of a document or shorter
_MOST_PASSAGE_CHARS = 2000


@lru_cache(maxsize=1)
def _encoder(tokenizer_file: Path) -> Encoder:
    from tokenizers import Tokenizer

    return Encoder(Tokenizer.from_file(str(tokenizer_file)))


def retrieval_part(number: int) -> str:
    return f"retrieval-{number:05d}.parquet"


@dataclass(frozen=True)
class RetrievalJob:
    """Makes the retrieval documents of one part of the corpus, each of `row_tokens` tokens, from its documents of `split`.

    Writes `retrieval-N.parquet`; returns how many documents there are, the sum of the shares of their loss that answers have, and how
    often a family could not make one, by reason. `parts` holds the tokenizer.
    """

    documents: Parts
    parts: Parts
    params: RetrievalParams
    special: SpecialTokens
    chat: ChatFrame | None
    row_tokens: int
    split: str = "train"

    def __call__(self, unit: tuple[int, str]) -> dict[str, Any]:
        number, name = unit
        renderer = Renderer(_encoder(self.parts.kept(TOKENIZER_FILE)), self.special, self.chat)
        making = _Part(self, number, _texts_of(self.split, self.documents, name), renderer)
        with (
            self.parts.writing(retrieval_part(number)) as path,
            pq.ParquetWriter(path, RETRIEVAL, compression="zstd") as writer,
        ):
            rows: list[dict[str, Any]] = []
            for row in making.rows():
                rows.append(row)
                if len(rows) == _ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(rows, schema=RETRIEVAL))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, schema=RETRIEVAL))
        return {
            "made": making.num_made,
            "wanted": making.num_wanted,
            "answer_shares": making.answer_shares,
            "not_made": making.not_made,
        }


class _Part:
    """The documents of one part while they are made."""

    def __init__(self, job: RetrievalJob, number: int, texts: Sequence[SourceText], renderer: Renderer) -> None:
        self._job, self._number, self._renderer = job, number, renderer
        self._supply = TextSupply(texts, np.random.default_rng([job.params.seed, number]))
        self._sources = {text.doc_id: text for text in texts}
        self.chars_per_token = _chars_per_token(self._supply.documents, renderer.encoder)
        num_chars = int(job.row_tokens * self.chars_per_token)
        passage_chars = min(num_chars // _PASSAGE_SHARE, _MOST_PASSAGE_CHARS)
        negatives = Negatives(self._supply.documents, passage_chars)
        symbols, signs = writable_symbols(renderer.encoder), writable_signs(renderer.encoder)
        questions, cost = job.params.questions_of(job.row_tokens), name_cost(renderer.encoder, self.chars_per_token)
        self._request = Request(self._supply, negatives, questions, num_chars, symbols, signs, cost)
        share = job.params.share
        num_tokens = self._supply.num_left / self.chars_per_token + len(self._supply.documents) * job.special.num
        self.num_wanted = math.ceil(_MARGIN * share / (1 - share) * num_tokens / job.row_tokens)
        self.num_made, self.answer_shares = 0, 0.0
        self.not_made: dict[str, dict[str, int]] = {}

    def rows(self) -> Iterator[dict[str, Any]]:
        families = self._job.params.trained_families
        for index in count():
            if self.num_made == self.num_wanted or not self._supply.num_left:
                return
            first = self._number + index
            turn = [families[(first + i) % len(families)] for i in range(len(families))]
            made = next(filter(None, (self._made(family, index) for family in turn)), None)
            if made is None:  # the text here is of no use to any family, such as a table of numbers, or it ends too soon
                self._supply.use(self._request.num_chars)
                continue
            family, fitted = made
            draft = fitted.draft
            used = draft.num_used if draft.negatives else draft.num_used + fitted.num_filled
            self._supply.take(draft.taken)
            doc_ids = draft.made_from(fitted.num_filled)
            if not draft.negatives:
                doc_ids = tuple(dict.fromkeys((*doc_ids, *self._supply.doc_ids(used))))
            self._supply.use(used)
            self._request.negatives.give(draft.negatives)
            yield self._row(family, self.num_made, replace(draft, doc_ids=doc_ids), fitted)
            self.num_made += 1

    def _made(self, family: RetrievalFamily, index: int) -> tuple[RetrievalFamily, Fitted] | None:
        seed = [self._job.params.seed, self._number, index, FAMILIES.index(family)]
        make = partial(_draft, family, self._request, seed)
        try:
            return family, fit(make, self._renderer, self._job.row_tokens, self.chars_per_token)
        except NotMade as reason:
            reasons = self.not_made.setdefault(family, {})
            reasons[str(reason)] = reasons.get(str(reason), 0) + 1
            return None

    def _row(self, family: str, index: int, draft: Draft, fitted: Fitted) -> dict[str, Any]:
        rendered = fitted.rendered
        sources = [self._sources[doc_id] for doc_id in draft.doc_ids]
        languages = {source.language for source in sources}
        weights = loss_weights(rendered.is_answer, rendered.is_invented, self._job.params.answer_weight)
        self.answer_shares += reached_share(weights, rendered.is_answer)
        return {
            "doc_id": f"retrieval-{self._number:05d}-{index:06d}",
            "family": family,
            "text": rendered.text,
            "licence": " + ".join(sorted({source.licence for source in sources})),
            "language": (languages.pop() or None) if len(languages) == 1 else None,
            "made_from": list(draft.doc_ids),
            "input_ids": rendered.token_ids,
            "loss_weights": weights,
            "is_answer": rendered.is_answer,
            "evidence": list(rendered.evidence),
            "answered": list(rendered.answered),
        }


def _draft(family: RetrievalFamily, request: Request, seed: Sequence[int], num_chars: int) -> Draft:
    return MAKERS[family](request, num_chars, np.random.default_rng(seed))


def _texts_of(split: str, documents: Parts, name: str) -> list[SourceText]:
    """The documents of one split in a part, all of which are in memory; the others are never read further. No conversations."""
    found: list[SourceText] = []
    with documents.reading(name) as path:
        if TURNS in pq.read_schema(path).names:
            return []
        for batch in pq.ParquetFile(path).iter_batches(batch_size=64, columns=_COLUMNS):
            for row in batch.filter(pc.equal(batch["split"], split)).to_pylist():
                found.append(SourceText(row["doc_id"], row["text"], row["licence"], row["language"] or ""))
    return found


def _chars_per_token(documents: Sequence[SourceText], encoder: Encoder) -> float:
    """Of the beginnings of some documents; 1.0 where there is no text."""
    samples: list[str] = []
    size = 0
    for document in documents:
        samples.append(document.text[:_SAMPLED_A_DOCUMENT])
        size += len(samples[-1])
        if size >= _SAMPLED_CHARS:
            break
    num_tokens = sum(len(encoded.ids) for encoded in encoder.encode(samples))
    return size / num_tokens if num_tokens and size else 1.0
