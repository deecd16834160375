"""The training text of one part of the corpus, given out passage by passage, each character once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tasks.retrieval.stretches import first_beginning

BETWEEN = "\n\n"  # two documents in one passage


@dataclass(frozen=True)
class SourceText:
    """A training document."""

    doc_id: str
    text: str
    licence: str
    language: str


@dataclass(frozen=True)
class Taken:
    """The next `num_chars` characters of one document, `document` in the supply's order."""

    document: int
    num_chars: int


class TextSupply:
    """The documents in a random order, each with a place up to which it was used, so that no character is given out twice.

    After use, a document goes on where a line or a sentence begins; what stands before is passed over. Documents without a visible
    character are left out.
    """

    def __init__(self, documents: Sequence[SourceText], rng: np.random.Generator) -> None:
        kept = [document for document in documents if document.text.strip()]
        self.documents = [kept[i] for i in rng.permutation(len(kept)).tolist()]
        self._texts = [document.text.strip() for document in self.documents]
        self._starts = [0] * len(self._texts)
        self._first = 0  # of the documents that have some left

    @property
    def num_left(self) -> int:
        """Characters that were not given out."""
        return sum(self._left(document) for document in range(self._first, len(self._texts)))

    @property
    def left_in_document(self) -> int:
        """Characters up to the end of the first document that has some left."""
        return self._left(self._first) if self._first < len(self._texts) else 0

    def passage(self, num_chars: int) -> str:
        """The next `num_chars` characters, or fewer at the end; documents are separated by an empty line."""
        pieces: list[str] = []
        missing = num_chars
        for document in self._with_some():
            if missing <= 0:
                break
            separator = BETWEEN if pieces else ""  # it can be all that is missing
            start = self._starts[document]
            piece = separator + self._texts[document][start : start + missing]
            pieces.append(piece)
            missing -= len(piece)
        return "".join(pieces)[:num_chars]

    def within(self, num_chars: int, number: int = 1) -> list[Taken]:
        """`num_chars` characters of each of the first `number` documents that have so many left; fewer if there are not so many."""
        long_enough = (document for document in self._with_some() if self._left(document) >= num_chars)
        return [Taken(document, num_chars) for document in islice(long_enough, number)]

    def text(self, taken: Taken) -> str:
        start = self._starts[taken.document]
        return self._texts[taken.document][start : start + taken.num_chars]

    def doc_ids(self, num_chars: int) -> tuple[str, ...]:
        """The documents that the next `num_chars` characters are from."""
        return tuple(self.documents[i].doc_id for i in self._spanned(num_chars))

    def use(self, num_chars: int) -> None:
        """Move on past `num_chars` characters of what `passage` gives."""
        for document in self._with_some():
            if num_chars <= 0:
                break
            left = self._left(document)
            self._move(document, num_chars)
            num_chars -= left + len(BETWEEN)

    def take(self, taken: Sequence[Taken]) -> None:
        """Use these characters of single documents."""
        for one in taken:
            self._move(one.document, one.num_chars)

    def without(self, taken: Sequence[Taken]) -> TextSupply:
        """What is left once these are taken; this supply stays as it is."""
        rest = copy(self)
        rest._starts = self._starts.copy()
        rest.take(taken)
        return rest

    def _move(self, document: int, num_chars: int) -> None:
        text, place = self._texts[document], self._starts[document] + num_chars
        self._starts[document] = first_beginning(text, place) if place < len(text) else len(text)
        while self._first < len(self._texts) and not self._left(self._first):
            self._first += 1

    def _left(self, document: int) -> int:
        return len(self._texts[document]) - self._starts[document]

    def _with_some(self) -> Iterator[int]:
        """The documents that have some left."""
        return (document for document in range(self._first, len(self._texts)) if self._left(document))

    def _spanned(self, num_chars: int) -> list[int]:
        found = []
        for document in self._with_some():
            if num_chars <= 0:
                break
            found.append(document)
            num_chars -= self._left(document) + len(BETWEEN)
        return found
