"""RULER's needles in a haystack (Hsieh et al. 2024, arXiv 2404.06654): numbers under word keys, in held-out text.

single      1 key with 1 value, 1 asked for                       (niah_single_2)
multikey    4 keys with 1 value each, 1 asked for                 (niah_multikey_1)
multivalue  1 key with 4 values, all asked for                    (niah_multivalue)
multiquery  4 keys with 1 value each, all asked for               (niah_multiquery)

Keys are an adjective with a noun and values have seven digits, as in RULER. Where several are asked for, the score is the share
of values that the output contains.
"""

from __future__ import annotations

import numpy as np

from tasks.evaluate.prompts.hidden import Parts
from tasks.evaluate.prompts.material import Material
from tasks.evaluate.prompts.numbers import absent_numbers
from tasks.evaluate.prompts.pieces import encode, needles, question_and_answer
from tasks.evaluate.prompts.words import key_names

NUM_NEEDLES = 4
NUM_DIGITS = 7
OUTPUT_TOKENS = 128  # RULER's limit

OPENING = "# Remember the special numbers.\n"
# As for the passkey, a question ends with the words in front of the value in the needle.
NEEDLE = "\n# The special number of {key} is {value}.\n"
QUESTION = "\n# What is the special number of {key}? The special number of {key} is"
VALUES_NEEDLE = "\n# The special numbers of {key} include {value}.\n"
VALUES_QUESTION = "\n# What are all the special numbers of {key}? The special numbers of {key} include"
KEYS_QUESTION = "\n# What are the special numbers of {keys} and {last}? The special number of {key} is"


def single_parts(rng: np.random.Generator, hay_text: str, material: Material) -> Parts:
    """One needle."""
    return _one_asked(1, rng, hay_text, material)


def multikey_parts(rng: np.random.Generator, hay_text: str, material: Material) -> Parts:
    """One needle and three distractors with other keys; these stay in the control."""
    return _one_asked(NUM_NEEDLES, rng, hay_text, material)


def multivalue_parts(rng: np.random.Generator, hay_text: str, material: Material) -> Parts:
    """Four values of one key."""
    (key,) = key_names(1, rng)
    values = absent_numbers(NUM_NEEDLES, NUM_DIGITS, hay_text, rng)
    answer = " " + ", ".join(values)
    return _all_asked(VALUES_NEEDLE, [key] * NUM_NEEDLES, values, VALUES_QUESTION.format(key=key), answer, material)


def multiquery_parts(rng: np.random.Generator, hay_text: str, material: Material) -> Parts:
    """Four keys, asked for at once. The canonical answer repeats "KEY is" in front of each value, as the needles have it."""
    keys = key_names(NUM_NEEDLES, rng)
    values = absent_numbers(NUM_NEEDLES, NUM_DIGITS, hay_text, rng)
    question = KEYS_QUESTION.format(keys=", ".join(keys[:-1]), last=keys[-1], key=keys[0])
    others = (f", of {key} is {value}" for key, value in zip(keys[1:], values[1:], strict=True))
    return _all_asked(NEEDLE, keys, values, question, f" {values[0]}" + "".join(others), material)


def _one_asked(num_keys: int, rng: np.random.Generator, hay_text: str, material: Material) -> Parts:
    tokenizer = material.tokenizer
    keys, values = key_names(num_keys, rng), absent_numbers(num_keys, NUM_DIGITS, hay_text, rng)
    hidden = needles([NEEDLE.format(key=k, value=v) for k, v in zip(keys, values, strict=True)], values, tokenizer)
    question, answer = question_and_answer(QUESTION.format(key=keys[0]), f" {values[0]}", tokenizer, material.chat)
    return Parts(
        opening=encode(OPENING, tokenizer),
        asked=(hidden[0],),
        distractors=tuple(hidden[1:]),
        question=question,
        answer=answer,
        golds=(values[0],),
    )


def _all_asked(template: str, keys: list[str], values: list[str], question: str, answer: str, material: Material) -> Parts:
    tokenizer = material.tokenizer
    question_ids, answer_ids = question_and_answer(question, answer, tokenizer, material.chat)
    return Parts(
        opening=encode(OPENING, tokenizer),
        asked=tuple(needles([template.format(key=k, value=v) for k, v in zip(keys, values, strict=True)], values, tokenizer)),
        question=question_ids,
        answer=answer_ids,
        golds=tuple(values),
        limit=OUTPUT_TOKENS,
    )
