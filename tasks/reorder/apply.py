"""Apply a reorder config to retrieved passages."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from data_schemas.errors import UserError
from data_schemas.reorder import ReorderConfig
from data_schemas.serving_advice import QuestionKind, ServingAdvice
from tasks.reorder.arrangement import Arrangement
from tasks.reorder.config import read_config
from tasks.reorder.joining import Piece, runs
from tasks.reorder.options import Ranking, ReorderOptions
from tasks.reorder.passages import view
from tasks.reorder.permutations import permutation
from tasks.reorder.ranking import rank_passages
from tasks.reorder.recall_curve import why_not_calibrated
from tasks.reorder.selection import select
from tasks.reorder.serving import HowToServe, advice_beside, how_to_serve

Passage = TypeVar("Passage")
_DEFAULTS = ReorderOptions()


class ChunkReorder:
    """Applies a reorder config; needs neither torch nor ray.

    >>> ChunkReorder.load("releases/demo").apply(["best", "second", "third"])  # important_first_last
    ['best', 'third', 'second']

    Passages are strings, mappings, or documents of LangChain, LlamaIndex and Haystack; `tasks.reorder.passages` lists the fields
    that are read. `ReorderOptions`, or its fields as keywords, turn on more than ordering:

    >>> reorder.apply(passages, budget_tokens=4000, count_tokens=count, near_duplicates=0.8, keep_adjacent=True)
    """

    def __init__(self, config: ReorderConfig, advice: ServingAdvice | None = None) -> None:
        self.config = config
        self.advice = advice

    @classmethod
    def load(cls, path_or_release: str | Path) -> ChunkReorder:
        """From a `chunk_reorder.json`, a release folder or a `releases/NAME` folder; UserError if there is none.

        A `serving_advice.json` beside it is read too, for `how_to_serve`.
        """
        path = Path(path_or_release)
        return cls(read_config(path), advice_beside(path))

    def how_to_serve(self, kind: QuestionKind | None = None) -> HowToServe:
        """How to cut, find and order passages, and whether to ask about the whole document too, for a kind of question.

        >>> how = ChunkReorder.load("releases/demo").how_to_serve()
        >>> how.chunking.max_tokens, how.k, how.budget_tokens, how.order, how.way
        """
        return how_to_serve(self.config, self.advice, kind)

    @property
    def fallback_reason(self) -> str:
        """Why `calibrated` uses `important_first_last` at the longest measured length; empty if it does not."""
        return why_not_calibrated(self.config.recall_by_position) if self.config.strategy == "calibrated" else ""

    def permutation(self, n: int, context_tokens: int | None = None) -> list[int]:
        """Ranks 1..n in prompt order; `calibrated` uses the recall at a prompt of `context_tokens`."""
        return permutation(self.config.strategy, n, self.config.recall_by_position, context_tokens)

    def apply(
        self,
        passages: Sequence[Passage],
        budget_tokens: int | None = None,
        *,
        options: ReorderOptions = _DEFAULTS,
        **changes: Any,
    ) -> list[Any]:
        """The same passages in prompt order, between instructions and question if those are given.

        Give them best first, or with scores: a higher score ranks better, and equal scores keep their order. With
        `ranking="distance"` a lower number ranks better. If a framework's passage has None as its score, all keep the given order. That,
        and scores that rise where retrievers give the best first, is said in a warning. Raises UserError for a score that is not a
        finite number. `arrange` also returns what was dropped and merged.
        """
        return self._arranged(passages, budget_tokens, replace(options, **changes)).parts()

    def arrange(
        self,
        passages: Sequence[Passage],
        budget_tokens: int | None = None,
        *,
        options: ReorderOptions = _DEFAULTS,
        **changes: Any,
    ) -> Arrangement[Passage]:
        """The passages in prompt order, and what was dropped and merged.

        The steps: rank the passages, merge near-duplicates, join overlapping ones, keep the most relevant that fit
        `budget_tokens`, group neighbours in a document, and order the rest. `changes` are fields of `ReorderOptions` that override
        those of `options`.
        """
        return self._arranged(passages, budget_tokens, replace(options, **changes))

    def _arranged(
        self, passages: Sequence[Passage], budget_tokens: int | None, options: ReorderOptions
    ) -> Arrangement[Passage]:
        views = [view(p, i, ranking=options.ranking) for i, p in enumerate(passages, 1)]
        ranked = rank_passages(views, options)
        if ranked.note:
            warnings.warn(ranked.note, stacklevel=3)  # at the line that called `apply` or `arrange`
        selection = select(ranked.passages, options, budget_tokens)
        groups = _grouped(selection.pieces, options)
        size = options.context_tokens or (selection.num_tokens if options.count_tokens else None) or None
        strategy, curve = options.strategy or self.config.strategy, self.config.recall_by_position
        ordered = [groups[rank - 1] for rank in permutation(strategy, len(groups), curve, size)]
        return Arrangement(
            passages=[p.passage(selection.piece_tokens[p.rank]) for group in ordered for p in group],
            dropped=selection.dropped,
            merged=selection.merged,
            groups=tuple(tuple(p.rank for p in group) for group in ordered),
            fallback_reason=why_not_calibrated(curve, size) if strategy == "calibrated" else "",
            num_tokens=selection.num_tokens,
            instructions=options.instructions,
            question=options.question,
            note=ranked.note,
        )


def _grouped(pieces: list[Piece], options: ReorderOptions) -> list[list[Piece]]:
    return runs(pieces, options.max_gap_chars) if options.keep_adjacent else [[p] for p in pieces]


def arrange_file(
    config_path: Path, passages_jsonl: Path, budget_tokens: int | None = None, options: ReorderOptions = _DEFAULTS
) -> Arrangement[dict[str, Any] | str]:
    """The passages of a JSON Lines file, one object or string a line, in prompt order and otherwise unchanged.

    Blank lines are skipped. Raises UserError with the number of a wrong line.
    """
    passages = _read_passages(passages_jsonl, ranking=options.ranking)
    return ChunkReorder.load(config_path).arrange(passages, budget_tokens, options=options)


def _read_passages(path: Path, *, ranking: Ranking) -> list[dict[str, Any] | str]:
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UserError(f"Cannot read the passages {path} ({error.strerror}): give a JSON Lines file.") from error
    passages: list[dict[str, Any] | str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            passage = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number} is not JSON in UTF-8 ({error}): give an object or a string a line."
            ) from error
        if not isinstance(passage, dict | str):
            raise UserError(f"{path}, line {number} is a {type(passage).__name__}: give an object or a string a line.")
        try:
            view(passage, number, ranking=ranking)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        passages.append(passage)
    return passages
