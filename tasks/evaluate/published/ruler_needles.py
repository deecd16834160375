"""RULER's needle tasks: `niah_*` (Hsieh et al. 2024, arXiv 2404.06654, section 3; NVIDIA/RULER, Apache-2.0)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

from tasks.evaluate.published.ruler_settings import (
    NEEDLE,
    NEEDLE_PROMPT,
    NEEDLE_TOKENS,
    NOISE,
    SEED,
    SHORT,
    Kind,
    Needles,
)
from tasks.evaluate.published.ruler_sizing import Drawn, Sizes, estimated, fitting, largest_size

_DEPTHS = [int(depth) for depth in np.round(np.linspace(0, 100, num=40)).astype(int)]

Sentences = Callable[[str], list[str]]


def needle_samples(
    name: str,
    settings: Needles,
    length: int,
    num_samples: int,
    count: Callable[[str], int],
    words: Sequence[str],
    essay: str,
    sentences: Sentences,
) -> list[Drawn]:
    """Prompts of one configuration at `length` tokens, answer included.

    Args:
        count: tokens of a text, without special ones.
        words: what keys are drawn from, sorted.
        essay: the essays end to end, for configurations with that haystack.
        sentences: splits a text into sentences.

    Raises:
        UserError: a prompt does not fit.
    """
    task = _NeedleTask(settings, words, essay, sentences)
    step = 500 if settings.haystack == "essay" else 5 if length < SHORT else 25
    limit = length - NEEDLE_TOKENS
    upper = estimated(count(task.draw(step).text), step, length)
    size = largest_size(task.draw, Sizes(step=step, upper=upper), count, limit)
    return [fitting(task.draw, size, step, count, limit, name, length) for _ in range(num_samples)]


class _NeedleTask:
    """Draws prompts from one stream of random numbers."""

    def __init__(self, settings: Needles, words: Sequence[str], essay: str, sentences: Sentences) -> None:
        self._settings, self._words, self._split = settings, words, sentences
        self._rng = Random(SEED)
        self._essay = re.sub(r"\s+", " ", essay).split(" ") if settings.haystack == "essay" else []
        self._num_keys = max(settings.num_keys, settings.num_queries)

    def draw(self, size: int) -> Drawn:
        """A prompt with `size` words of essays, or sentences."""
        settings = self._settings
        keys: list[str] = []
        values: list[list[str]] = []
        for _ in range(self._num_keys):
            keys.append(self._word(settings.keys))
            values.append([self._word(settings.values) for _ in range(settings.num_values)])
        needles = [self._needle(key, value) for key, of_key in zip(keys, values, strict=True) for value in of_key]
        Random(SEED).shuffle(needles)
        context = self._in_essay(needles, size) if settings.haystack == "essay" else self._in_lines(needles, size)
        asked = self._rng.sample(range(self._num_keys), settings.num_queries)
        queries = [keys[i] for i in asked]
        query = ", ".join(queries[:-1]) + ", and " + queries[-1] if len(queries) > 1 else queries[0]
        prompt, kind = NEEDLE_PROMPT, str(settings.values)
        if settings.num_queries * settings.num_values == 1:
            prompt = prompt.replace("Some", "A").replace("are all", "is").replace("are", "is").replace("answers", "answer")
            kind = kind[:-1]
        text = prompt.format(type_needle_v=kind, context=context, query=query)
        return Drawn(text, tuple(value for i in asked for value in values[i]))

    def _needle(self, key: str, value: str) -> str:
        return NEEDLE.format(type_needle_v=self._settings.values, key=key, value=value)

    def _word(self, kind: Kind) -> str:
        if kind == "numbers":
            return str(self._rng.randint(10**6, 10**7 - 1))
        if kind == "words":
            return self._rng.choice(self._words)
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _in_essay(self, needles: list[str], num_words: int) -> str:
        repeats = -(-num_words // len(self._essay))
        found = self._split(" ".join((self._essay * repeats)[:num_words]).strip())
        depths = self._rng.sample(_DEPTHS, len(needles))
        places = [0, *sorted(int(len(found) * (depth / 100)) for depth in depths), len(found)]
        pieces: list[Any] = []
        for number, (start, stop) in enumerate(pairwise(places)):
            pieces.append(" ".join(found[start:stop]))
            pieces += needles[number : number + 1]
        return " ".join(pieces)

    def _in_lines(self, needles: list[str], num_lines: int) -> str:
        settings = self._settings
        if settings.haystack == "noise":
            lines = [NOISE] * num_lines
        else:
            lines = [self._needle(self._word(settings.keys), self._word(settings.values)) for _ in range(num_lines)]
        places = sorted(self._rng.sample(range(num_lines), len(needles)), reverse=True)
        for place, needle in zip(places, needles, strict=True):
            lines.insert(place, needle)
        return "\n".join(lines)
