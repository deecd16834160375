"""Putting retrieved passages into prompt order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from data_schemas.errors import UserError
from data_schemas.reorder import ReorderConfig
from tasks.reorder.config import read_config
from tasks.reorder.permutations import permutation, why_not_calibrated

Passage = TypeVar("Passage")


class ChunkReorder:
    """Applies a reorder config; needs neither torch nor ray.

    >>> ChunkReorder.load("releases/demo").apply(["best", "second", "third"])  # important_first_last
    ['best', 'third', 'second']
    """

    def __init__(self, config: ReorderConfig) -> None:
        self.config = config

    @classmethod
    def load(cls, path_or_release: str | Path) -> ChunkReorder:
        """From a `chunk_reorder.json`, a release folder or a `releases/NAME` folder; UserError if there is none."""
        return cls(read_config(Path(path_or_release)))

    @property
    def fallback_reason(self) -> str:
        """Why `calibrated` uses `important_first_last` instead; empty where it does not."""
        return why_not_calibrated(self.config.recall_by_position) if self.config.strategy == "calibrated" else ""

    def permutation(self, n: int) -> list[int]:
        """Ranks 1..n in prompt order."""
        return permutation(self.config.strategy, n, self.config.recall_by_position)

    def apply(self, passages: Sequence[Passage]) -> list[Passage]:
        """The same passages in prompt order.

        They come best first, or as mappings with a number in "score": then a higher score ranks better, and equal scores
        keep their given order. Raises UserError if only some have a score, or one is not a finite number.
        """
        ranked = rank(passages)
        return [ranked[place - 1] for place in self.permutation(len(ranked))]


def rank(passages: Sequence[Passage]) -> list[Passage]:
    """Best first: by descending score if every passage has one, as given if none has."""
    scores = [_score(passage, number) for number, passage in enumerate(passages, start=1)]
    if all(score is None for score in scores):
        return list(passages)
    if None in scores:
        raise UserError(
            f"Passage {scores.index(None) + 1} has no score but others have: give every passage a number in `score`, or none."
        )
    # sorted is stable, and with reverse as well
    order = sorted(range(len(passages)), key=scores.__getitem__, reverse=True)
    return [passages[i] for i in order]


def reorder_file(config_path: Path, passages_jsonl: Path) -> Iterator[dict[str, Any] | str]:
    """The passages of a JSON Lines file, an object or a string a line, in prompt order and otherwise as they were.

    Blank lines are skipped. Raises UserError, naming the line, before the first passage is given out.
    """
    reorder = ChunkReorder.load(config_path)
    yield from reorder.apply(_read_passages(passages_jsonl))


def _score(passage: object, number: int) -> Any:
    if not isinstance(passage, Mapping) or "score" not in passage:
        return None
    score = passage["score"]
    if isinstance(score, bool) or not isinstance(score, Real) or not math.isfinite(score):
        raise UserError(f"The score of passage {number} is {score!r}: give a finite number, or leave all scores out.")
    return score


def _read_passages(path: Path) -> list[dict[str, Any] | str]:
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
            _score(passage, number)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        passages.append(passage)
    return passages
