"""RULER's variable tracking: `vt` (Hsieh et al. 2024, arXiv 2404.06654, section 3; NVIDIA/RULER, Apache-2.0).

Each prompt begins with a solved example, with other names and another value each time.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from random import Random

import numpy as np

from data_schemas.errors import UserError
from tasks.evaluate.published.ruler_settings import NOISE, NUM_HOPS, SEED, SHORT, TRACKING_PROMPT, TRACKING_TOKENS
from tasks.evaluate.published.ruler_sizing import Drawn, Sizes, estimated, fitting, largest_size

EXAMPLE_TOKENS = 500
_EXAMPLE_STEP, _EXAMPLE_VALUE = 5, "12345"


def tracking_samples(length: int, num_samples: int, count: Callable[[str], int]) -> list[Drawn]:
    """Prompts at `length` tokens, answer included; UserError where one does not fit."""
    task = _Tracking()
    example = task.example(count)
    example_tokens = count(example)
    step = 5 if length < SHORT else 10
    upper = estimated(count(task.draw(step).text), step, length)
    limit = length - TRACKING_TOKENS
    size = largest_size(task.draw, Sizes(step=step, upper=upper), count, limit - example_tokens)

    def with_example(size: int) -> Drawn:
        drawn = task.draw(size)
        return Drawn(f"{task.renamed(example)}\n{drawn.text}", drawn.golds)

    return [fitting(with_example, size, step, count, limit, "vt", length) for _ in range(num_samples)]


class _Tracking:
    def __init__(self) -> None:
        self._rng, self._values = Random(SEED), np.random.RandomState(SEED)

    def example(self, count: Callable[[str], int]) -> str:
        """A solved prompt of at most 500 tokens."""

        def draw(size: int) -> Drawn:
            return self.draw(size, is_example=True)

        upper = estimated(count(draw(_EXAMPLE_STEP).text), _EXAMPLE_STEP, EXAMPLE_TOKENS)
        size = largest_size(draw, Sizes(step=_EXAMPLE_STEP, upper=upper), count, EXAMPLE_TOKENS)
        try:
            drawn = fitting(draw, size, _EXAMPLE_STEP, count, EXAMPLE_TOKENS, "vt", EXAMPLE_TOKENS)
        except UserError as error:
            raise UserError(
                f"RULER's vt shows an example of at most {EXAMPLE_TOKENS} tokens, and this tokenizer needs more for it, so RULER cannot "
                "be run as published: leave ruler out of evaluation.published."
            ) from error
        return f"{drawn.text} {' '.join(drawn.golds)}\n"

    def draw(self, num_noises: int, *, is_example: bool = False) -> Drawn:
        """A prompt with the chain in `num_noises` lines of noise. Names have three letters in the example, else five."""
        letters = 3 if is_example else 5
        names = [self._name(letters) for _ in range(NUM_HOPS + 1)]
        while len(set(names)) < NUM_HOPS + 1:
            names.append(self._name(letters))
        chains = [names[i : i + NUM_HOPS + 1] for i in range(0, len(names), NUM_HOPS + 1)]
        lines = [NOISE] * num_noises
        value = ""
        assigned = [self._chain(chain, is_example) for chain in chains]
        for chain in assigned:
            places = sorted(self._rng.sample(range(len(lines)), len(chain)))
            for already, (place, line) in enumerate(zip(places, chain, strict=True)):
                lines.insert(place + already, line)
        value = assigned[0][0].split("=")[-1].strip()
        context = "\n".join(lines).replace(". \n", ".\n")
        return Drawn(TRACKING_PROMPT.format(context=context, query=value, num_v=NUM_HOPS + 1), tuple(chains[0]))

    def renamed(self, example: str) -> str:
        """The example with new names and a new value."""
        for name in example.strip().split()[-NUM_HOPS - 1 :]:
            example = example.replace(name, self._name(len(name)))
        return example.replace(_EXAMPLE_VALUE, self._value())

    def _chain(self, names: list[str], is_example: bool) -> list[str]:
        first = f"VAR {names[0]} = {_EXAMPLE_VALUE if is_example else self._value()}"
        return [first, *(f"VAR {names[i + 1]} = VAR {names[i]} " for i in range(NUM_HOPS))]

    def _name(self, letters: int) -> str:
        return "".join(self._rng.choices(string.ascii_uppercase, k=letters))

    def _value(self) -> str:
        return str(self._values.randint(10000, 99999))
