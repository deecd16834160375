"""What a family is given to make one document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tasks.retrieval.draft import Draft
from tasks.retrieval.families.negatives import Negatives
from tasks.retrieval.text_supply import TextSupply

MOST_ASKED = 0.4  # of the document's characters: questions and answers together


@dataclass(frozen=True)
class Request:
    """One document to make.

    supply      where its text is from
    negatives   finds passages of other documents
    questions   how many questions are wanted
    num_chars   about how many characters the whole document has
    symbols     the kinds of names that the tokenizer can write: "letters", "capitals", "digits"
    signs       the signs that it can write around them
    name_cost   characters of text that take as many tokens as one character of such a line
    """

    supply: TextSupply
    negatives: Negatives
    questions: int
    num_chars: int
    symbols: Sequence[str]
    signs: str
    name_cost: float

    @property
    def asked_chars(self) -> int:
        return int(MOST_ASKED * self.num_chars)


class Family(Protocol):
    """Makes drafts whose context has about `num_chars` characters of the supply's text.

    The same seed gives the same draws for any `num_chars`. Raises NotMade with the reason.
    """

    def __call__(self, request: Request, num_chars: int, rng: np.random.Generator) -> Draft: ...
