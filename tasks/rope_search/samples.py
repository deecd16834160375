"""What a candidate is scored on: a document with needles at all depths, and their questions at its end.

    BOS │ text … needle … text … needle … text [scored text] │ question answer question answer …

One forward pass gives the log-probability of every answer and of the last tokens of the text. So a sample of D depths costs one
pass, where a prompt for each depth would cost D. The questions come in random order, so that the distance between a needle and its
question is not the same for neighbouring needles.

Scored are only the answers (LongRoPE2's needle-driven perplexity, arXiv 2502.20082, section 3.3) and the last text tokens, which have
the longest context.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from tasks.evaluate.heldout import HeldOutDocument
from tasks.evaluate.prompts.hidden import spread_depths
from tasks.evaluate.prompts.numbers import absent_numbers
from tasks.evaluate.prompts.pieces import encode_each, questions_and_answers, text_of

NEEDLE = "\n# The {name} key is {key}. Remember it. The {name} key is {key}.\n"
QUESTION = "\n# What is the {name} key? The {name} key is"
NAMES = ("red", "blue", "green", "black", "white", "yellow", "brown", "grey", "pink", "orange", "gold", "silver")
NUM_DIGITS = 5
_PURPOSES = ("search", "decide")

_Asked = tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]  # needles; questions with their answers


@dataclass(frozen=True)
class SearchSample:
    """One row of tokens, int32 [length]. Position p is scored by the logits at p - 1.

    `answers`: positions of answer tokens, int64 [tokens]; `text`: positions of scored text tokens, int64 [tokens].
    `depths`: of the needles, ascending, as shares of the text. `cluster`: samples of one cluster are alike, and are counted as one.
    """

    doc_id: str
    tokens: np.ndarray
    answers: np.ndarray
    text: np.ndarray
    depths: tuple[float, ...]
    cluster: str = ""

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of tokens and scored positions."""
        arrays = (np.asarray(self.tokens, "<i4"), np.asarray(self.answers, "<i8"), np.asarray(self.text, "<i8"))
        return hashlib.sha256(b"".join(a.tobytes() + b"|" for a in arrays)).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """How samples are made. Lengths in tokens."""

    length: int
    num_depths: int
    text_tokens: int
    seed: int


def request_of(params: PipelineParams) -> SampleRequest:
    """How the samples of a search are made."""
    search = params.rope_search
    return SampleRequest(
        length=params.model.target_length, num_depths=search.depths, text_tokens=search.text_tokens, seed=search.seed
    )


def refuse_little_text(request: SampleRequest, tokenizer: Any) -> None:
    """UserError if needles and questions leave too little of the length for text, by the first sample, before a document is read.

    Numbers that its document happens to hold, and a token in front of texts, are not known here.
    """
    rng = np.random.default_rng([request.seed, _PURPOSES.index("search"), 0, request.length])
    _room_for_text(_asked("", request, tokenizer, rng), 0, request)


def make_samples(
    documents: Sequence[HeldOutDocument], request: SampleRequest, tokenizer: Any, *, purpose: str, count: int
) -> list[SearchSample]:
    """`count` samples, one after the other from each document, at another place each time a document's turn comes again.

    Raises:
        UserError: needles and questions leave too little of the length for text.
    """
    offsets = np.random.default_rng([request.seed, request.length]).random(request.num_depths)
    return [
        _sample(documents[number % len(documents)], number, offsets, request, tokenizer, _PURPOSES.index(purpose))
        for number in range(count)
    ]


def _sample(
    document: HeldOutDocument, number: int, offsets: np.ndarray, request: SampleRequest, tokenizer: Any, purpose: int
) -> SearchSample:
    rng = np.random.default_rng([request.seed, purpose, number, request.length])
    bos, body = document.token_ids[: document.num_leading], document.token_ids[document.num_leading :]
    needles, questions = asked = _asked(text_of(body, tokenizer), request, tokenizer, rng)
    num_text = _room_for_text(asked, len(bos), request)
    start = int(rng.integers(0, max(1, len(body) - num_text + 1)))
    text = body[start : start + num_text]
    depths = spread_depths(len(needles), number, offsets)
    last_needle = num_text - request.text_tokens  # the scored text comes after every needle
    cuts = [round(depth * last_needle) for depth in depths]
    pieces, before = [bos], 0
    for cut, needle in zip(cuts, needles, strict=True):
        pieces += [text[before:cut], needle]
        before = cut
    pieces.append(text[before:])
    end_of_text = sum(map(len, pieces))
    answers, written = [], end_of_text
    for question, answer in questions:
        pieces += [question, answer]
        answers.append(np.arange(written + len(question), written + len(question) + len(answer)))
        written += len(question) + len(answer)
    return SearchSample(
        doc_id=document.doc_id,
        tokens=np.concatenate(pieces).astype(np.int32),
        answers=np.concatenate(answers),
        text=np.arange(end_of_text - request.text_tokens, end_of_text),
        depths=tuple(depths),
    )


def _asked(text: str, request: SampleRequest, tokenizer: Any, rng: np.random.Generator) -> _Asked:
    """The needles, with numbers that `text` does not have, and their questions with answers, as tokens."""
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[: request.num_depths]]
    keys = absent_numbers(len(names), NUM_DIGITS, text, rng)
    needles = encode_each([NEEDLE.format(name=n, key=k) for n, k in zip(names, keys, strict=True)], tokenizer)
    order = rng.permutation(len(names)).tolist()
    questions = questions_and_answers(
        [QUESTION.format(name=names[i]) for i in order], [f" {keys[i]}" for i in order], tokenizer
    )
    return needles, questions


def _room_for_text(asked: _Asked, num_leading: int, request: SampleRequest) -> int:
    """Tokens that are left for text. UserError if those are too few."""
    needles, questions = asked
    taken = num_leading + sum(map(len, needles)) + sum(len(question) + len(answer) for question, answer in questions)
    num_text = request.length - taken
    if num_text < 2 * request.text_tokens or num_text < request.length // 4:
        raise UserError(
            f"{len(needles)} needles and their questions take {taken} of {request.length} tokens, which leaves too little text: lower "
            "rope_search.depths or rope_search.text_tokens, or raise model.target_length."
        )
    return num_text


def write_samples(samples: Sequence[SearchSample], path: Path) -> None:
    """To an npz file, which `read_samples` reads."""
    arrays: dict[str, np.ndarray] = {}
    for number, sample in enumerate(samples):
        arrays |= {f"{number}-{name}": getattr(sample, name) for name in ("tokens", "answers", "text")}
        arrays[f"{number}-depths"] = np.asarray(sample.depths)
        arrays[f"{number}-doc_id"] = np.asarray(sample.doc_id)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_samples(path: Path) -> list[SearchSample]:
    """What `write_samples` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        count = sum(name.endswith("-tokens") for name in arrays.files)
        return [
            SearchSample(
                doc_id=str(arrays[f"{i}-doc_id"]),
                tokens=arrays[f"{i}-tokens"],
                answers=arrays[f"{i}-answers"],
                text=arrays[f"{i}-text"],
                depths=tuple(arrays[f"{i}-depths"].tolist()),
            )
            for i in range(count)
        ]
