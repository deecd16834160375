"""What is reported of a training document that shares text with evaluated text, and of a held-out document with boilerplate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tasks.ingest.decontamination.boilerplate import Boilerplate
from tasks.ingest.decontamination.evaluated_index import EvaluatedIndex
from tasks.ngrams.document_index import found_in
from tasks.ngrams.passages import first_passage
from tasks.ngrams.word_ngrams import distinct_ngrams

HELDOUT = "heldout"  # value of CONTAMINATION.evaluated_in


@dataclass(frozen=True)
class Hit:
    """One row of CONTAMINATION without the document's identity.

    evaluated_in  HELDOUT, or the name of a prompt
    num_shared    different n-grams, boilerplate not counted, that the document shares with `evaluated_in`
    share         num_shared as a part of the document's different n-grams, boilerplate not counted
    copied_share  largest part of one held-out document that this document contains; 0 for prompts
    example       the first shared passage
    """

    evaluated_in: str
    num_shared: int
    share: float
    copied_share: float
    example: str
    removed: bool


@dataclass(frozen=True)
class SharedText:
    """One row of SHARED_TEXT without the document's identity: text of a held-out document that does not count.

    num_ngrams     different n-grams of the held-out document
    num_shared     those of them that do not count
    num_documents  training documents that contain the most common of them, at most 65,535
    is_given_up    they make up `boilerplate_share` of the held-out document, but their copies are too much of the training text
    """

    num_ngrams: int
    num_shared: int
    share: float
    num_documents: int
    example: str
    is_given_up: bool


def hits_of(index: EvaluatedIndex, boilerplate: Boilerplate, text: str, is_removed: bool) -> list[Hit]:
    """At most one Hit for held-out text, which removes as decided by `choose_removed`, and one for each prompt."""
    mine = distinct_ngrams(text, index.ngram_words)
    return [*_heldout_hits(index, boilerplate, text, mine, is_removed), *_prompt_hits(index, boilerplate, text, mine)]


def shared_text(index: EvaluatedIndex, boilerplate: Boilerplate, number: int, text: str) -> SharedText:
    """Of held-out document `number`, which has common n-grams that do not count."""
    mine = distinct_ngrams(text, index.ngram_words)
    places = index.heldout.find(mine)
    places = places[boilerplate.is_common[places]]
    return SharedText(
        num_ngrams=len(mine),
        num_shared=len(places),
        share=len(places) / len(mine),
        num_documents=int(boilerplate.num_with[places].max()),
        example=first_passage(text, index.heldout.hashes[places], (index.ngram_words,)),
        is_given_up=bool(boilerplate.is_given_up[number]),
    )


def _heldout_hits(
    index: EvaluatedIndex, boilerplate: Boilerplate, text: str, mine: np.ndarray, is_removed: bool
) -> Iterator[Hit]:
    places = index.heldout.find(mine)
    owners, which = boilerplate.counted(index, places)
    counted = np.unique(which)
    if len(counted):
        owner, num_shared = np.unique(owners, return_counts=True)
        copied = float((num_shared / boilerplate.sizes[owner]).max())
        share = len(counted) / (len(mine) - (len(places) - len(counted)))
        example = first_passage(text, index.heldout.hashes[places[counted]], (index.ngram_words,))
        yield Hit(HELDOUT, len(counted), share, copied, example, is_removed)


def _prompt_hits(index: EvaluatedIndex, boilerplate: Boilerplate, text: str, mine: np.ndarray) -> Iterator[Hit]:
    ngrams = index.prompt_ngrams(text, mine)
    places, hashes = found_in(ngrams, index.prompts)
    is_common = boilerplate.is_common[places + len(index.heldout)]
    num_counting = len(ngrams) - int(is_common.sum())
    owners, shared = index.prompt_owners[places[~is_common]], hashes[~is_common]
    for owner in np.unique(owners):
        of_owner = shared[owners == owner]
        example = first_passage(text, of_owner, index.prompt_lengths)
        yield Hit(index.prompt_names[owner], len(of_owner), len(of_owner) / num_counting, 0.0, example, removed=True)
