"""What reordering gives back: the passages in prompt order, and what was done to get there."""

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

    `groups` are the ranks in prompt order, those together that stand together as chunks of one document. `num_tokens` is what
    passages, instructions and question were counted to take, None where nothing was counted. `fallback_reason` says why
    `calibrated` used `important_first_last` instead, and is empty where it did not.
    """

    passages: list[Passage]
    dropped: tuple[Dropped, ...]
    merged: tuple[Merged, ...]
    groups: tuple[tuple[int, ...], ...]
    fallback_reason: str
    num_tokens: int | None
    instructions: str | None = None
    question: str | None = None

    def parts(self) -> list[Passage | str]:
        """The instructions first, where given, the passages, and the question last."""
        first = [] if self.instructions is None else [self.instructions]
        last = [] if self.question is None else [self.question]
        return [*first, *self.passages, *last]

    def prompt(self, separator: str = "\n\n", template: Callable[[Passage], str] | None = None) -> str:
        """All of it as one text; `template` writes a passage, whose plain text is taken without it.

        The budget knows neither the separator, unless `separator_tokens` says so, nor what a template adds.
        """
        write = template or (lambda passage: view(passage, 1 + self.passages.index(passage), is_scored=False).need_text())
        texts = [write(passage) for passage in self.passages]
        return separator.join(text for text in (self.instructions, *texts, self.question) if text is not None)
