"""The rank of each passage: by score, by distance, or as given; and a sentence where the numbers look unlike what they are taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from data_schemas.errors import UserError
from tasks.reorder.options import ReorderOptions
from tasks.reorder.passages import PassageView

_FEWEST_OPPOSED = 3  # two numbers are in one order or the other


@dataclass(frozen=True)
class Ranked:
    """The passages, best first. `note` says in one sentence what is doubtful about their ranks, and is empty if nothing is."""

    passages: list[PassageView]
    note: str = ""


def rank_passages(passages: Sequence[PassageView], options: ReorderOptions) -> Ranked:
    """Best first, by `options.ranking`. Equal numbers keep their given order. UserError if a mapping alone lacks its number.

    The given order stays if no passage has a number, or if one has None: post-processors of frameworks add passages without a score.
    """
    scores = [passage.score for passage in passages]
    if options.ranking == "given" or all(score is None for score in scores):
        return Ranked(list(passages))
    name = options.ranking
    if None in scores:
        first = scores.index(None)
        if _lacks_it(passages[first].passage, name):
            raise UserError(
                f"Passage {first + 1} has no {name} but others have: give every passage a number in `{name}`, or none."
            )
        return Ranked(
            list(passages), f"Passage {first + 1} has no {name} but others have, so all passages keep the given order."
        )
    # sorted is stable, and with reverse as well
    ranked = sorted(passages, key=lambda passage: passage.score, reverse=name == "score")
    return Ranked(ranked, _opposed(scores, name))


def _lacks_it(passage: Any, name: str) -> bool:
    return isinstance(passage, Mapping) and name not in passage and "score" not in passage


def _opposed(scores: Sequence[Any], name: str) -> str:
    """A sentence for three or more passages whose given order is exactly opposed to their numbers."""
    rising = name == "score"
    opposed = all(a <= b if rising else a >= b for a, b in pairwise(scores)) and scores[0] != scores[-1]
    if len(scores) < _FEWEST_OPPOSED or not opposed:
        return ""
    what, other = ("scores rise", "distance") if rising else ("distances fall", "score")
    return (
        f"The {what} from the first passage to the last, but retrievers give the best first: if these are {other}s set "
        f"ranking to `{other}`, and if the given order is right set it to `given`."
    )
