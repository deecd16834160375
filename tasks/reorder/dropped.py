"""What each level of a summary dropped: tokens, numbers and names of the texts that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.reorder.levels import Level, Part
from tasks.reorder.map_reduce import MapReduceResult
from tasks.reorder.sentences import names_of, numbers_of, spellings_of
from tasks.reorder.splitting import CountTokens


@dataclass(frozen=True)
class Kept:
    """Different numbers or names: how many there were before, and which of them are gone or new after, sorted."""

    num_before: int
    dropped: tuple[str, ...]
    added: tuple[str, ...]


@dataclass(frozen=True)
class LevelReport:
    """One level against what it was made from. Parts that a level only passes on are not counted.

    `num_cut_tokens` were written and cut off to keep the budget. An added number or name is in none of the texts that its part
    was made from, so it is likely invented.
    """

    level: int
    num_parts: int
    tokens_before: int
    tokens_after: int
    num_cut_tokens: int
    numbers: Kept
    names: Kept

    @property
    def sentence(self) -> str:
        """For people."""
        cut = f", {self.num_cut_tokens} of them cut off" if self.num_cut_tokens else ""
        return (
            f"Level {self.level}: {self.num_parts} parts, {self.tokens_before} tokens became {self.tokens_after}{cut}; dropped "
            f"{len(self.numbers.dropped)} of {self.numbers.num_before} numbers and {len(self.names.dropped)} of "
            f"{self.names.num_before} names, added {len(self.numbers.added)} and {len(self.names.added)}."
        )


def dropped(result: MapReduceResult, count_tokens: CountTokens) -> tuple[LevelReport, ...]:
    """One report for each level."""
    reports, seen = [], set()
    for number, level in enumerate(result.levels):
        made = tuple(part for part in level if id(part) not in seen)
        seen |= {id(part) for part in level}
        reports.append(_report(number, made, count_tokens))
    return tuple(reports)


def _report(number: int, made: Level, count_tokens: CountTokens) -> LevelReport:
    sources = {id(source): source for part in made for source in part.made_from}
    before = sum(one.num_tokens if isinstance(one, Part) else count_tokens(one.text) for one in sources.values())
    return LevelReport(
        level=number,
        num_parts=len(made),
        tokens_before=before,
        tokens_after=sum(part.num_tokens for part in made),
        num_cut_tokens=sum(part.num_cut_tokens for part in made),
        numbers=_kept(made, numbers_of),
        names=_kept(made, names_of),
    )


def _kept(made: Level, find: Callable[[str], set[str]]) -> Kept:
    before: set[str] = set()
    after: set[str] = set()
    added: set[str] = set()
    for part in made:
        given = "\n".join(source.text for source in part.made_from)
        before |= find(given)
        after |= spellings_of(part.text)
        added |= find(part.text) - spellings_of(given)
    return Kept(len(before), tuple(sorted(before - after)), tuple(sorted(added)))
