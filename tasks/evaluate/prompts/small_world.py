"""A small world in which people move, take and drop things; one-word questions about it need one, two or three facts.

After BABILong (Kuratov et al. 2024, arXiv 2406.10149) and its bAbI tasks 1 to 3 (Weston et al. 2015, arXiv 1502.05698); sentences
and names are Ropeway's own.

    1 fact      Nora went to the mill.                                          Where is Nora?
    2 facts     Nora took the kettle. Nora went to the mill.                    Where is the kettle?
    3 facts     … and then: Nora went to the quay.                              Where was the kettle before the quay?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.evaluate.prompts.words import word_list

PEOPLE = word_list("Nora Emil Tessa Bruno Ilse Marek Priya Oskar Leila Hugo Anouk Dario Freya Tomas Zara Kofi")
PLACES = word_list(
    "mill quay cellar chapel orchard bakery foundry library stable lighthouse attic vineyard museum pantry theatre "
    "garage dairy tavern market nursery pavilion harbour workshop courtyard"
)
THINGS = word_list("kettle lantern compass violin ledger hammer basket umbrella mirror candle teapot saddle telescope cushion")
MOST_FACTS = 3

Action = Literal["go", "take", "drop"]


@dataclass(frozen=True)
class Fact:
    """`who` goes to the place `what`, or takes or drops the thing `what`."""

    who: str
    action: Action
    what: str

    @property
    def text(self) -> str:
        verb = {"go": "went to", "take": "took", "drop": "dropped"}[self.action]
        return f"\n# {self.who} {verb} the {self.what}.\n"


@dataclass(frozen=True)
class Story:
    """Facts in the order of time: `earlier`, `needed`, `later`, with `others` anywhere; the answer is a place.

    The answer needs all of `needed`, and `needed[gold]` states it. `earlier` and `later` name other places.
    """

    earlier: Fact
    needed: tuple[Fact, ...]
    later: Fact
    others: tuple[Fact, ...]
    gold: int
    question: str
    answer: str


def make_story(num_facts: int, taken_words: frozenset[str], rng: np.random.Generator) -> Story:
    """A story whose question needs `num_facts` facts, with words that are not in `taken_words` while there are enough.

    Every place occurs once, so neither the last place nor the most frequent one is the answer. Other people move, take and
    drop other things.
    """
    who, *rest = _choose(PEOPLE, 4, taken_words, rng)
    answer, next_place, old, last, *places = _choose(PLACES, 6, taken_words, rng)
    thing, *things = _choose(THINGS, 3, taken_words, rng)
    go, take = Fact(who, "go", answer), Fact(who, "take", thing)
    needed: tuple[Fact, ...]
    if num_facts == 1:
        needed, gold, question = (go,), 0, f"\n# Where is {who}? {who} is now in the"
    elif num_facts == 2:
        needed, gold, question = (take, go), 1, f"\n# Where is the {thing}? The {thing} is now in the"
    else:
        needed, gold = (take, go, Fact(who, "go", next_place)), 1
        question = f"\n# Where was the {thing} before it was in the {next_place}? It was in the"
    others = (
        Fact(rest[0], "go", places[0]),
        Fact(rest[1], "take", things[0]),
        Fact(rest[1], "go", places[1]),
        Fact(rest[0], "drop", things[1]),
    )
    return Story(Fact(who, "go", old), needed, Fact(rest[2], "go", last), others, gold, question, answer)


def place_of(name: str, facts: Sequence[Fact]) -> list[str]:
    """The places where the person or thing `name` has been, in the order of time, by `facts` in that order."""
    places: dict[str, str] = {}
    holder: dict[str, str] = {}
    been: list[str] = []
    for fact in facts:
        if fact.action == "go":
            places[fact.who] = fact.what
        elif fact.action == "take":
            holder[fact.what] = fact.who
        else:
            holder.pop(fact.what, None)
        here = places.get(holder.get(name, name))
        if here and (not been or been[-1] != here):
            been.append(here)
    return been


def _choose(words: Sequence[str], count: int, taken: frozenset[str], rng: np.random.Generator) -> list[str]:
    """Different words in random order; those in `taken` come last."""
    shuffled = [words[i] for i in rng.permutation(len(words)).tolist()]
    return sorted(shuffled, key=lambda word: word.casefold() in taken)[:count]
