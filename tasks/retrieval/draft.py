"""What a family makes: the parts of a document before they are tokens."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.retrieval.text_supply import Taken


class NotMade(Exception):
    """A document could not be made; the message is a reason of a few words, which the ledger counts."""


@dataclass(frozen=True)
class Turn:
    """A question and its answer, which begins with the white space between them.

    The evidence begins at character `evidence` of the draft's `before`. `end` follows the answer and is no part of it; chats leave it out.
    """

    question: str
    answer: str
    evidence: int
    end: str = ""


@dataclass(frozen=True)
class Draft:
    """A document's text: `before`, then as much of `spare` as fills the length, then `after`, then the turns.

    before    the context with its evidence
    spare     text that fills the length up
    turns     questions and answers at the end; what they weigh is the answers
    after     text after the filling
    answers   spans of characters of `before` that weigh like answers; with `after_weighs`, so does all of `after`
    invented  spans of characters of `before` that nothing predicts, such as keys: they weigh nothing; with `asks_invented`, nor do
              the questions
    num_used  characters taken from the supply for `before` and `after`, one after another
    taken     what was taken of single documents instead; `spare` is what follows once it is gone
    doc_ids   the documents that `before` and `after` are from
    negatives passages of other documents in it
    spare_from where `spare` is of other documents: (the first character, the document) of each passage
    """

    before: str
    spare: str
    num_used: int
    doc_ids: tuple[str, ...]
    turns: tuple[Turn, ...] = ()
    after: str = ""
    after_weighs: bool = False
    answers: tuple[tuple[int, int], ...] = ()
    invented: tuple[tuple[int, int], ...] = ()
    asks_invented: bool = False
    negatives: tuple[str, ...] = ()
    spare_from: tuple[tuple[int, str], ...] = ()
    taken: tuple[Taken, ...] = ()

    def made_from(self, num_filled: int) -> tuple[str, ...]:
        """The documents that `before`, `after` and the first `num_filled` characters of `spare_from`'s passages are from."""
        return tuple(dict.fromkeys((*self.doc_ids, *(doc_id for start, doc_id in self.spare_from if start < num_filled))))
