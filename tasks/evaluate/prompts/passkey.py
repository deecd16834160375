"""Passkey retrieval: a sentence with a random number hidden in held-out text, asked for at the end.

After Mohtashami & Jaggi 2023 (arXiv 2305.16300, section 4.2), with three differences: the haystack is real held-out text,
the needle is placed at a grid of depths, and each prompt has a *control* in which haystack text takes the needle's place.
The log-probability of the answer with the needle minus without it (nats) rises long before a small model gets all digits
right.
"""

from __future__ import annotations

import numpy as np

from tasks.evaluate.prompts.hidden import Parts
from tasks.evaluate.prompts.material import Material
from tasks.evaluate.prompts.numbers import absent_numbers
from tasks.evaluate.prompts.pieces import needle, question_and_answer

# A comment line fits into source code and reads well in prose. The question has the same words in front of the key as the
# needle, so that a model that can only continue a repeated phrase can answer too.
NEEDLE = "\n# The pass key is {key}. Remember it. The pass key is {key}.\n"
QUESTION = "\n# What is the pass key? The pass key is"


def passkey_parts(rng: np.random.Generator, hay_text: str, material: Material) -> Parts:
    """A key of five digits."""
    (key,) = absent_numbers(1, 5, hay_text, rng)
    question, answer = question_and_answer(QUESTION, f" {key}", material.tokenizer, material.chat)
    return Parts(
        asked=(needle(NEEDLE.format(key=key), key, material.tokenizer),), question=question, answer=answer, golds=(key,)
    )
