"""The result of reordering: the passages in prompt order, and what was dropped and merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tasks.reorder.passages import view
from tasks.reorder.selection import Dropped, Merged

Passage = TypeVar("Passage")


@dataclass(frozen=True)
class Arrangement(Generic[Passage]):
    """Passages in prompt order.

    `groups` are the ranks in prompt order; neighbouring chunks of one document are in one group. `num_tokens` is the size of
    passages, instructions and question, None if nothing was counted. `fallback_reason` says why `calibrated` used
    `important_first_last` instead, and is empty if it did not. `note` says what is doubtful about the ranks.
    """

    passages: list[Passage]
    dropped: tuple[Dropped, ...]
    merged: tuple[Merged, ...]
    groups: tuple[tuple[int, ...], ...]
    fallback_reason: str
    num_tokens: int | None
    instructions: str | None = None
    question: str | None = None
    note: str = ""

    def parts(self) -> list[Passage | str]:
        """Instructions, passages and question, in this order; those that were not given are left out."""
        first = [] if self.instructions is None else [self.instructions]
        last = [] if self.question is None else [self.question]
        return [*first, *self.passages, *last]

    def prompt(self, separator: str = "\n\n", template: Callable[[Passage], str] | None = None) -> str:
        """The prompt as one text; `template` formats a passage, and without it the plain text is used.

        The budget does not include the separator, unless `separator_tokens` is set, or the text that a template adds.
        """
        write = template or (lambda passage: view(passage, 1 + self.passages.index(passage), ranking="given").need_text())
        texts = [write(passage) for passage in self.passages]
        return separator.join(text for text in (self.instructions, *texts, self.question) if text is not None)
