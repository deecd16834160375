"""RULER's frequent words extraction (Hsieh et al. 2024, arXiv 2404.06654): the three most frequent words of a coded text.

Words have six random letters; the k-th makes up a share of k^-2 / zeta(2) of the text. As in RULER, the most frequent "word" is
noise, three dots to be ignored, and the answer is the next three. The text has as many words as fit the length.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from tasks.evaluate.prompts.joining import Joined, join, most_that_fit
from tasks.evaluate.prompts.material import Material, does_not_fit, probe_generators, sample_seed
from tasks.evaluate.prompts.pieces import encode, encode_each, generation_limit, question_and_answer
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.words import coded_words

ALPHA = 2.0
ZETA = np.pi**2 / 6  # of ALPHA
NOISE = "..."
NUM_ASKED = 3
MIN_WORDS = 53  # from here on each of the three comes more often than the next, which comes at least once
OUTPUT_TOKENS = 50  # RULER's limit

OPENING = "# A text in coded words. Remember how often each one comes; the dots do not count.\n"
QUESTION = "\n# Which three coded words come most often? They are:"


def frequent_word_prompts(length: int, material: Material) -> list[TaskPrompt]:
    return [_prompt(length, sample, material) for sample in range(material.num_samples)]


def shortest_frequent_words(material: Material) -> int:
    needed = []
    for rng in probe_generators():
        _, tokens, question, answer = _draw(MIN_WORDS, rng, material)
        needed.append(_num_tokens(MIN_WORDS, tokens) + len(question) + _num_answer(answer))
    return len(_front(material)) + max(needed)


def word_counts(num_words: int) -> np.ndarray:
    """How often each word occurs in a text of `num_words`, rounded down as in RULER; words that never occur are left out."""
    ranks = np.arange(1, int(np.sqrt(num_words / ZETA)) + 2)
    counts = np.floor(num_words * ranks**-ALPHA / ZETA).astype(np.int64)
    return counts[counts > 0]


def _front(material: Material) -> np.ndarray:
    return np.concatenate([material.haystack.bos, encode(OPENING, material.tokenizer)])


def _num_answer(answer: np.ndarray) -> int:
    return max(len(answer), generation_limit(answer, OUTPUT_TOKENS))


def _num_tokens(num_words: int, tokens: list[np.ndarray]) -> int:
    counts = word_counts(num_words)
    return int(np.dot(counts, [len(ids) for ids in tokens[: len(counts)]]))


def _draw(
    num_words: int, rng: np.random.Generator, material: Material
) -> tuple[list[str], list[np.ndarray], np.ndarray, np.ndarray]:
    """The asked words, every word's tokens by rank, question and answer."""
    words = [NOISE, *coded_words(len(word_counts(num_words)), rng)]
    tokens = encode_each([f" {word}" for word in words], material.tokenizer)
    asked = words[1 : 1 + NUM_ASKED]
    return asked, tokens, *question_and_answer(QUESTION, " " + ", ".join(asked), material.tokenizer, material.chat)


def _prompt(length: int, sample: int, material: Material) -> TaskPrompt:
    seed = sample_seed(material.seed, "frequent_words", length, sample)
    rng = np.random.default_rng(seed)
    front = _front(material)
    asked, tokens, question, answer = _draw(max(MIN_WORDS, 2 * length), rng, material)
    budget = length - len(front) - len(question) - _num_answer(answer)
    guess = bisect_right(range(2 * length), budget, key=lambda n: _num_tokens(n, tokens)) - 1
    made: dict[int, Joined] = {}

    def needed(num_words: int) -> int:
        text = np.repeat(np.arange(len(word_counts(num_words))), word_counts(num_words))
        shown = [tokens[i] for i in np.random.default_rng([seed, num_words]).permutation(text)]
        made[num_words] = join([front, *shown, question], answer, material.tokenizer)
        return len(made[num_words].tokens) + _num_answer(answer)

    num_words = most_that_fit(guess, MIN_WORDS, max(MIN_WORDS, 2 * length), length, needed)
    if num_words < MIN_WORDS:
        raise does_not_fit("frequent_words", length)
    joined = made[num_words]
    return TaskPrompt(
        task="frequent_words",
        length=length,
        depth=None,
        position=None,
        sample=sample,
        seed=seed,
        tokens=joined.tokens,
        golds=tuple(asked),
        answer=joined.answer,
        control=None,
        is_forced=False,
        max_new_tokens=_num_answer(answer),
    )
