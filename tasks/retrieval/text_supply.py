"""The training text of one part of the corpus, given out passage by passage, each character once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BETWEEN = "\n\n"  # two documents in one passage


@dataclass(frozen=True)
class SourceText:
    """A training document."""

    doc_id: str
    text: str
    licence: str
    language: str


class TextSupply:
    """The documents in a random order with a cursor; `use` moves the cursor, so that no character is given out twice.

    Documents without a visible character are left out.
    """

    def __init__(self, documents: Sequence[SourceText], rng: np.random.Generator) -> None:
        kept = [document for document in documents if document.text.strip()]
        self.documents = [kept[i] for i in rng.permutation(len(kept)).tolist()]
        self._texts = [document.text.strip() for document in self.documents]
        self._document, self._char = 0, 0

    @property
    def num_left(self) -> int:
        """Characters that were not given out."""
        return sum(map(len, self._texts[self._document :])) - self._char

    @property
    def left_in_document(self) -> int:
        """Characters up to the end of the document at the cursor."""
        return len(self._texts[self._document]) - self._char if self._document < len(self._texts) else 0

    def passage(self, num_chars: int) -> str:
        """The next `num_chars` characters, or fewer at the end; documents are separated by an empty line."""
        pieces: list[str] = []
        document, char, missing = self._document, self._char, num_chars
        while missing > 0 and document < len(self._texts):
            separator = BETWEEN if pieces else ""  # it can be all that is missing
            piece = separator + self._texts[document][char : char + missing]
            pieces.append(piece)
            missing -= len(piece)
            document, char = document + 1, 0
        return "".join(pieces)[:num_chars]

    def doc_ids(self, num_chars: int) -> tuple[str, ...]:
        """The documents that the next `num_chars` characters are from."""
        return tuple(self.documents[i].doc_id for i in self._spanned(num_chars))

    def use(self, num_chars: int) -> None:
        """Move on past `num_chars` characters of what `passage` gives."""
        while num_chars > 0 and self._document < len(self._texts):
            left = len(self._texts[self._document]) - self._char
            if num_chars < left:
                self._char += num_chars
                return
            num_chars -= left + len(BETWEEN)
            self._document, self._char = self._document + 1, 0

    def _spanned(self, num_chars: int) -> list[int]:
        found, document, char = [], self._document, self._char
        while num_chars > 0 and document < len(self._texts):
            found.append(document)
            num_chars -= len(self._texts[document]) - char + len(BETWEEN)
            document, char = document + 1, 0
        return found
