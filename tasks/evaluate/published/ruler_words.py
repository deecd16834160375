"""RULER's word counts: `cwe` and `fwe` (Hsieh et al. 2024, arXiv 2404.06654, section 3; NVIDIA/RULER, Apache-2.0)."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from data_schemas.errors import UserError
from tasks.evaluate.published.ruler_settings import (
    COMMON_PROMPT,
    COMMON_TOKENS,
    FREQUENT_PROMPT,
    FREQUENT_TOKENS,
    SEED,
    SHORT,
    ZETA_EXPONENT,
)
from tasks.evaluate.published.ruler_sizing import Drawn, Sizes, fitting, largest_size

NUM_COMMON = 10
_COMMON_STEP, _PROBE_WORDS = 10, 4096
_CODED_LETTERS = 6


def common_word_samples(
    length: int, num_samples: int, count: Callable[[str], int], words: Sequence[str], more_words: Sequence[str]
) -> list[Drawn]:
    """`cwe` at `length` tokens, answer included.

    Args:
        words: nouns, adjectives and verbs, sorted.
        more_words: for lists that need more different words than `words` has.

    Raises:
        UserError: a prompt does not fit, or there are too few words.
    """
    task = _CommonWords(words, more_words, is_short=length < SHORT)
    limit = length - COMMON_TOKENS
    per_word = count(task.draw(_PROBE_WORDS).text) / _PROBE_WORDS
    sizes = Sizes(step=_COMMON_STEP, upper=int(length // per_word) * 2)
    size = largest_size(task.draw, sizes, count, limit)
    return [fitting(task.draw, size, _COMMON_STEP, count, limit, "cwe", length) for _ in range(num_samples)]


class _CommonWords:
    def __init__(self, words: Sequence[str], more_words: Sequence[str], *, is_short: bool) -> None:
        self._rng = Random(SEED)
        self._words = list(words)
        Random(SEED).shuffle(self._words)
        self._more_words, self._is_short = list(more_words), is_short

    def draw(self, num_words: int) -> Drawn:
        """A solved example, then a prompt with `num_words` different words."""
        example, solved = self._listed(20, 3, 1) if self._is_short else self._listed(40, 10, 3)
        context, golds = self._listed(num_words, 6, 1) if self._is_short else self._listed(num_words, 30, 3)
        shown = f"{COMMON_PROMPT.format(context=example)} {_numbered(solved)}"
        return Drawn(f"{shown}\n{COMMON_PROMPT.format(context=context)}", tuple(golds))

    def _listed(self, num_words: int, common: int, uncommon: int) -> tuple[str, list[str]]:
        source = self._words if num_words <= len(self._words) else self._more_words
        if num_words > len(source):
            raise UserError(
                f"RULER's cwe needs {num_words} different English words: give RULER's english_words.json as "
                "evaluation.published_data.english_words."
            )
        chosen = self._rng.sample(source, num_words)
        listed = chosen[:NUM_COMMON] * common + chosen[NUM_COMMON:] * uncommon
        Random(SEED).shuffle(listed)
        return _numbered(listed), chosen[:NUM_COMMON]


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))


def frequent_word_samples(length: int, num_samples: int, count: Callable[[str], int]) -> list[Drawn]:
    """`fwe` at `length` tokens, answer included; UserError where a prompt does not fit."""
    limit = length - FREQUENT_TOKENS
    step, num_coded = limit // 32, limit // 50
    if num_coded < 4 or step < 1:
        raise UserError(f"RULER's fwe does not fit {length} tokens: give longer evaluation.task_lengths.")
    rng = Random(SEED)
    coded = _coded_words(num_coded, rng)
    num_words = limit // _CODED_LETTERS
    while count(_frequent_prompt(coded, num_words)) < limit:
        num_words += step
    num_words -= step
    samples = []
    for _ in range(num_samples):
        coded, of_sample = _coded_words(num_coded, rng), num_words
        while of_sample > 0 and count(_frequent_prompt(coded, of_sample)) > limit:
            of_sample -= step
        if of_sample <= 0:
            raise UserError(f"RULER's fwe does not fit {length} tokens: give longer evaluation.task_lengths.")
        samples.append(Drawn(_frequent_prompt(coded, of_sample), tuple(coded[1:4])))
    return samples


def _coded_words(number: int, rng: Random) -> list[str]:
    """Random words, by falling frequency; the most frequent is noise."""
    words = ["".join(rng.choices(string.ascii_lowercase, k=_CODED_LETTERS)) for _ in range(number)]
    while len(set(words)) < number:
        words.append("".join(rng.choices(string.ascii_lowercase, k=_CODED_LETTERS)))
    words = sorted(set(words))
    Random(SEED).shuffle(words)
    return ["...", *words[1:]]


def _frequent_prompt(coded: Sequence[str], num_words: int) -> str:
    ranks = np.arange(1, len(coded) + 1)
    counts = (num_words * ranks**-ZETA_EXPONENT / (math.pi**2 / 6)).astype(int)
    words = [word for word, number in zip(coded, counts.tolist(), strict=True) for _ in range(number)]
    Random(SEED).shuffle(words)
    return FREQUENT_PROMPT.format(context=" ".join(words))
