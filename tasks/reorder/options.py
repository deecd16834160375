"""Options of `ChunkReorder`: what it does with passages besides ordering them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from data_schemas.errors import UserError
from data_schemas.reorder_strategy import ReorderStrategy
from tasks.reorder.passages import Ranking

CountTokens = Callable[[str], int]


@dataclass(frozen=True, kw_only=True)
class ReorderOptions:
    """Everything is off by default. Raises UserError for an invalid value."""

    strategy: ReorderStrategy | None = None
    """Use this strategy instead of the config's."""
    ranking: Ranking = "score"
    """score: by descending score if passages have one; distance: by rising `distance`, else `score`, as vector stores return it;
    given: in the given order, best first, ignoring both."""
    context_tokens: int | None = None
    """Tokens of the whole prompt, for `calibrated`; None: as counted with `count_tokens`, else the longest measured length."""
    count_tokens: CountTokens | None = None
    """Counts a text's tokens; without it a budget needs each passage's own `num_tokens`."""
    near_duplicates: float | None = None
    """Jaccard similarity of word 5-grams, in (0, 1], from which the lower-ranked of two passages is merged into the other."""
    join_overlaps: bool = False
    """Join passages whose character ranges in one document overlap."""
    keep_adjacent: bool = False
    """Keep chunks that follow each other in one document together, in reading order, at the place of the best one."""
    max_gap_chars: int = 2
    """For `keep_adjacent`: characters, such as stripped white space, that may be between two such chunks."""
    instructions: str | None = None
    """Text before the passages; counts in the budget."""
    question: str | None = None
    """Text after the passages; counts in the budget."""
    separator_tokens: int = 0
    """Tokens of the budget reserved between two neighbouring texts of the prompt."""

    def __post_init__(self) -> None:
        if self.strategy is not None and self.strategy not in get_args(ReorderStrategy):
            raise UserError(f"There is no strategy {self.strategy!r}: choose one of {', '.join(get_args(ReorderStrategy))}.")
        if self.ranking not in get_args(Ranking):
            raise UserError(f"ranking is {self.ranking!r}: choose `score`, `distance` or `given`.")
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            raise UserError(f"near_duplicates is {self.near_duplicates}: give a Jaccard similarity above 0, at most 1.")
        if self.context_tokens is not None and self.context_tokens < 1:
            raise UserError(f"context_tokens is {self.context_tokens}: give the prompt's size, 1 or more, or leave it out.")
        for name in ("max_gap_chars", "separator_tokens"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more.")
