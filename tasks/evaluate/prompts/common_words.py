"""RULER's common words extraction (Hsieh et al. 2024, arXiv 2404.06654): which ten words of a list are the most frequent?

The list is numbered and in random order. Ten common words occur `common` times each, all others `uncommon` times. RULER uses
(30, 3) and adds uncommon words with the length, as is done here. For short contexts the counts are the first of `REPEATS` with
which a list with ten uncommon words fits the run's shortest length; all lengths of a run use the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.evaluate.prompts.joining import Joined, join, most_that_fit
from tasks.evaluate.prompts.material import Material, does_not_fit, probe_generators, sample_seed
from tasks.evaluate.prompts.pieces import encode, encode_each, generation_limit, question_and_answer
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.words import NUM_INVENTED, invented_words

NUM_COMMON = 10
MIN_UNCOMMON = 10  # as in RULER's shortest example
# (common, uncommon): RULER's, then smaller at its ratio of ten to one, then down to the least that differs.
REPEATS = ((30, 3), (20, 2), *((common, 1) for common in range(10, 1, -1)))
OUTPUT_TOKENS = 120  # RULER's limit

OPENING = "# Some words of this list come often.\n"
QUESTION = "\n# Which 10 words come most often in the list? They are:"


@dataclass(frozen=True)
class _List:
    """The words of one list. `common_tokens` and `uncommon_tokens`: each word's tokens; more uncommon words than can fit."""

    common: list[str]
    common_tokens: list[np.ndarray]
    uncommon_tokens: list[np.ndarray]
    question: np.ndarray
    answer: np.ndarray

    @property
    def num_fixed(self) -> int:
        return len(self.question) + max(len(self.answer), generation_limit(self.answer, OUTPUT_TOKENS))

    def num_tokens(self, repeats: tuple[int, int], numbers: list[np.ndarray]) -> np.ndarray:
        """Tokens of the list with 0, 1, 2, … uncommon words, as far as `numbers` and words reach."""
        common, uncommon = repeats
        most = min(len(self.uncommon_tokens), (len(numbers) - NUM_COMMON * common) // uncommon)
        counts = np.arange(most + 1)
        numbering = np.cumsum([0, *map(len, numbers)])[NUM_COMMON * common + uncommon * counts]
        words = np.cumsum([0, *map(len, self.uncommon_tokens[:most])])
        return numbering + common * sum(map(len, self.common_tokens)) + uncommon * words


def common_word_prompts(length: int, material: Material) -> list[TaskPrompt]:
    repeats = _repeats(material)
    fewest = NUM_COMMON * repeats[0] + MIN_UNCOMMON * repeats[1]
    numbers = _numbers(max(fewest, _most_items(length, material)), material)
    return [_prompt(length, sample, repeats, numbers, material) for sample in range(material.num_samples)]


def shortest_common_words(material: Material) -> int:
    return _shortest(_repeats(material), _probes(material), material)


def _repeats(material: Material) -> tuple[int, int]:
    probes = _probes(material)
    limit = material.form_limit(_shortest(REPEATS[-1], probes, material))
    fitting = (repeats for repeats in REPEATS if _shortest(repeats, probes, material) <= limit)
    return next(fitting, REPEATS[-1])


def _probes(material: Material) -> list[_List]:
    return [_draw(MIN_UNCOMMON, rng, material) for rng in probe_generators()]


def _shortest(repeats: tuple[int, int], probes: list[_List], material: Material) -> int:
    numbers = _numbers(NUM_COMMON * repeats[0] + MIN_UNCOMMON * repeats[1], material)
    return len(_front(material)) + max(int(p.num_tokens(repeats, numbers)[-1]) + p.num_fixed for p in probes)


def _most_items(length: int, material: Material) -> int:
    """No list that fits has more items: each takes a number and a word of at least the tokens of the shortest probe."""
    words = [tokens for probe in _probes(material) for tokens in (*probe.common_tokens, *probe.uncommon_tokens)]
    return length // (len(_numbers(1, material)[0]) + min(map(len, words)))


def _front(material: Material) -> np.ndarray:
    return np.concatenate([material.haystack.bos, encode(OPENING, material.tokenizer)])


def _numbers(count: int, material: Material) -> list[np.ndarray]:
    return encode_each([f" {number}." for number in range(1, count + 1)], material.tokenizer)


def _draw(num_uncommon: int, rng: np.random.Generator, material: Material) -> _List:
    words = invented_words(NUM_COMMON + min(num_uncommon, NUM_INVENTED - NUM_COMMON), rng)
    tokens = encode_each([f" {word}" for word in words], material.tokenizer)
    common = words[:NUM_COMMON]
    numbered = "".join(f" {number}. {word}" for number, word in enumerate(common, start=1))
    question, answer = question_and_answer(QUESTION, numbered, material.tokenizer, material.chat)
    return _List(common, tokens[:NUM_COMMON], tokens[NUM_COMMON:], question, answer)


def _prompt(length: int, sample: int, repeats: tuple[int, int], numbers: list[np.ndarray], material: Material) -> TaskPrompt:
    seed = sample_seed(material.seed, "common_words", length, sample)
    rng = np.random.default_rng(seed)
    front = _front(material)
    words = _draw(len(numbers) // repeats[1], rng, material)
    budget = length - len(front) - words.num_fixed
    of_each = words.num_tokens(repeats, numbers)
    guess = int(np.searchsorted(of_each, budget, side="right")) - 1
    made: dict[int, Joined] = {}

    def needed(num_uncommon: int) -> int:
        body = [*words.common_tokens * repeats[0], *words.uncommon_tokens[:num_uncommon] * repeats[1]]
        order = np.random.default_rng([seed, num_uncommon]).permutation(len(body)).tolist()
        listed = [piece for number, i in zip(numbers, order, strict=False) for piece in (number, body[i])]
        made[num_uncommon] = join([front, *listed, words.question], words.answer, material.tokenizer)
        return len(made[num_uncommon].tokens) + words.num_fixed - len(words.question)

    num_uncommon = most_that_fit(guess, MIN_UNCOMMON, len(of_each) - 1, length, needed)
    if num_uncommon < MIN_UNCOMMON:
        raise does_not_fit("common_words", length)
    joined = made[num_uncommon]
    return TaskPrompt(
        task="common_words",
        length=length,
        depth=None,
        position=None,
        sample=sample,
        seed=seed,
        tokens=joined.tokens,
        golds=tuple(words.common),
        answer=joined.answer,
        control=None,
        is_forced=False,
        max_new_tokens=generation_limit(words.answer, OUTPUT_TOKENS),
    )
