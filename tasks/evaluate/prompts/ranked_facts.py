"""Ranked passages without outside data: each is held-out text that states one fact, and one fact is asked for.

A fact is the code of a name. It is stated twice, and the question ends with the words in front of the code in the passage, so that
a model that can only continue a repeated phrase can answer too. Prompt and answer fill the length exactly: the passages of
a length differ by at most one token, and their number grows with the length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.evaluate.prompts.material import Haystack, Material, sample_seed
from tasks.evaluate.prompts.numbers import absent_numbers
from tasks.evaluate.prompts.pieces import Needle, encode, encode_each, needles, question_and_answer, text_of
from tasks.evaluate.prompts.prompt import RANKED_TASK
from tasks.evaluate.prompts.ranked import RankedQuestion, RankedSet, gold_rank, rank_quantiles
from tasks.evaluate.prompts.words import key_names

NUM_PASSAGES = 8  # at the shortest length; the passages stay about as long at the others
MIN_TEXT_TOKENS = 8  # of a passage beside its fact
CODE_DIGITS = 5
_TRIES = 8
OPENING = "# Numbered passages. Each states the code of something.\n"
FACT = "\n# The code of {name} is {code}. Remember it. The code of {name} is {code}.\n"
QUESTION = "\n# What is the code of {name}? The code of {name} is"


@dataclass(frozen=True)
class _Asked:
    """What one sample hides and asks: the facts of all its passages, the asked one first, and each passage's own text."""

    sample: int
    seed: int
    facts: list[Needle]
    texts: list[Haystack]
    depths: np.ndarray  # where in its passage each fact stands, [passages]
    question: np.ndarray
    answer: np.ndarray
    code: str


def fact_questions(lengths: Sequence[int], num_samples: int, material: Material) -> RankedSet:
    """Questions at those of `lengths` (ascending) that hold enough passages."""
    for first in range(len(lengths)):
        passage_tokens = lengths[first] // NUM_PASSAGES
        counts = {length: length // passage_tokens for length in lengths[first:] if passage_tokens}
        slice_tokens = max((-(-length // count) for length, count in counts.items()), default=1)
        counts = {n: count for n, count in counts.items() if count * slice_tokens <= len(material.haystack.token_ids)}
        if counts and (found := _questions(counts, slice_tokens, num_samples, material)):
            return RankedSet(found)
    return RankedSet({}, f"{max(lengths, default=0)} tokens do not hold {NUM_PASSAGES} passages with a fact each")


def _questions(
    counts: dict[int, int], slice_tokens: int, num_samples: int, material: Material
) -> dict[int, tuple[RankedQuestion, ...]]:
    """By length, for numbers of passages `counts`, each of at most `slice_tokens`; none where they do not fit the shortest length."""
    front = np.concatenate([material.haystack.bos, encode(OPENING, material.tokenizer)])
    shortest = min(counts)
    most = max(counts.values())
    labels = encode_each([f"\n[{place}]\n" for place in range(1, most + 1)], material.tokenizer)
    hay_text = text_of(material.haystack.token_ids, material.tokenizer)
    quantiles = rank_quantiles(num_samples, material.seed)
    found: dict[int, list[RankedQuestion]] = {length: [] for length in counts}
    for sample in range(num_samples):
        asked = _draw(sample, most, slice_tokens, hay_text, material)
        for length, count in counts.items():
            budgets = _budgets(length, count, front, labels, asked)
            needed = max(len(fact.tokens) for fact in asked.facts[:count]) + MIN_TEXT_TOKENS
            if min(budgets) < needed:
                found.pop(length, None)
            elif length in found:
                found[length].append(_fitted(asked, length, count, front, labels, float(quantiles[sample]), material.tokenizer))
        counts = {length: count for length, count in counts.items() if length in found}
    return {length: tuple(questions) for length, questions in found.items()} if shortest in found else {}


def _budgets(length: int, count: int, front: np.ndarray, labels: list[np.ndarray], asked: _Asked) -> list[int]:
    """Tokens of each passage by rank: they differ by one at most, and the prompt fills `length`."""
    frame = len(front) + sum(len(label) for label in labels[:count]) + len(asked.question) + len(asked.answer)
    share, rest = divmod(length - frame, count)
    return [share + (rank < rest) for rank in range(count)]


def _fitted(
    asked: _Asked, length: int, count: int, front: np.ndarray, labels: list[np.ndarray], quantile: float, tokenizer: Any
) -> RankedQuestion:
    """The question whose prompt fills `length`, or comes nearest to it: as a whole text it may take other tokens than its pieces."""
    made: dict[int, tuple[int, RankedQuestion]] = {}
    wanted = length
    while wanted not in made and len(made) < _TRIES:
        budgets = _budgets(wanted, count, front, labels, asked)
        question = _question(asked, length, budgets, front, labels, quantile)
        prompt = question.prompt(range(1, count + 1), tokenizer)
        made[wanted] = len(prompt.tokens) + len(prompt.answer), question
        wanted += length - made[wanted][0]
    fitting = {size: question for size, question in made.values() if size <= length}
    return fitting[max(fitting)] if fitting else min(made.values(), key=lambda of_size: of_size[0])[1]


def _question(
    asked: _Asked, length: int, budgets: list[int], front: np.ndarray, labels: list[np.ndarray], quantile: float
) -> RankedQuestion:
    rank = gold_rank(quantile, len(budgets))
    ranked = [*range(1, rank), 0, *range(rank, len(budgets))]  # the asked fact is number 0
    made = [_passage(asked, number, budget) for number, budget in zip(ranked, budgets, strict=True)]
    return RankedQuestion(
        length=length,
        sample=asked.sample,
        seed=asked.seed,
        front=front,
        labels=tuple(labels[: len(budgets)]),
        passages=tuple(passage.tokens for passage in made),
        gold_rank=rank,
        gold_at=made[rank - 1].gold_at,
        question=asked.question,
        answer=asked.answer,
        golds=(asked.code,),
        is_forced=True,
        max_new_tokens=len(asked.answer),
    )


def _passage(asked: _Asked, number: int, budget: int) -> Needle:
    """Text of `budget` tokens with the fact at the end of a line or sentence."""
    fact, text = asked.facts[number], asked.texts[number]
    num_text = budget - len(fact.tokens)
    start = _line_start(text, len(text.token_ids) - num_text)
    shown = Haystack(text.token_ids[start:][:num_text], text.is_boundary[start:][:num_text], text.bos)
    cut = shown.cut(num_text, float(asked.depths[number]), max_shift=num_text)
    return Needle(np.concatenate([shown.token_ids[:cut], fact.tokens, shown.token_ids[cut:]]), cut + fact.gold_at)


def _line_start(text: Haystack, latest: int) -> int:
    """The first token of `text` that begins a line or sentence, by `latest`; else the first."""
    following = np.flatnonzero(text.is_boundary[:latest])
    return int(following[0]) + 1 if len(following) else 0


def _draw(sample: int, count: int, slice_tokens: int, hay_text: str, material: Material) -> _Asked:
    """Facts and texts for as many passages as the longest length has; shorter ones take the first of them."""
    seed = sample_seed(material.seed, RANKED_TASK, 0, sample)
    rng = np.random.default_rng(seed)
    names = key_names(count, rng)
    codes = absent_numbers(count, CODE_DIGITS, hay_text, rng)
    texts = [FACT.format(name=name, code=code) for name, code in zip(names, codes, strict=True)]
    question, answer = question_and_answer(QUESTION.format(name=names[0]), f" {codes[0]}", material.tokenizer, material.chat)
    slices = list(_slices(material.haystack, slice_tokens))
    chosen = rng.choice(len(slices), count, replace=False)
    return _Asked(
        sample=sample,
        seed=seed,
        facts=needles(texts, codes, material.tokenizer),
        texts=[slices[i] for i in chosen],
        depths=rng.random(count),
        question=question,
        answer=answer,
        code=codes[0],
    )


def _slices(hay: Haystack, num_tokens: int) -> Iterator[Haystack]:
    for start in range(0, len(hay.token_ids) - num_tokens + 1, num_tokens):
        stop = start + num_tokens
        yield Haystack(hay.token_ids[start:stop], hay.is_boundary[start:stop], hay.bos)
