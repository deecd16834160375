"""RULER's variable tracking (Hsieh et al. 2024, arXiv 2404.06654): which variables got a value through a chain of assignments?

One chain of four hops, RULER's default: a number is assigned to the first of five variables, and each one to the next. The
assignments keep the order of the chain, spread over held-out text. As in RULER, an example with its answer comes first; here
it is a chain without text, and it is left out where the prompt with it does not fit the run's shortest length.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tasks.evaluate.prompts.hidden import Parts, hidden_prompts, shortest_hidden
from tasks.evaluate.prompts.material import Material
from tasks.evaluate.prompts.numbers import absent_numbers
from tasks.evaluate.prompts.pieces import encode, needles, question_and_answer
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.words import variable_names

NUM_HOPS = 4
OUTPUT_TOKENS = 30  # RULER's limit

OPENING = "# Track the variables in this text.\n"
QUESTION = "\n# Which five variables have the value {value}? By the chain of assignments they are:"


def variable_prompts(length: int, material: Material) -> list[TaskPrompt]:
    return hidden_prompts("variable_tracking", partial(_parts, _has_example(material)), length, material)


def shortest_variables(material: Material) -> int:
    return shortest_hidden(partial(_parts, _has_example(material)), material)


def assignments(names: list[str], value: str) -> list[str]:
    """`VAR A = 12345`, `VAR B = VAR A`, … each on a line of its own."""
    sources = [value, *(f"VAR {name}" for name in names[:-1])]
    return [f"\nVAR {name} = {source}\n" for name, source in zip(names, sources, strict=True)]


def _has_example(material: Material) -> bool:
    without, example = (shortest_hidden(partial(_parts, has_example), material) for has_example in (False, True))
    return example <= material.form_limit(without)


def _parts(has_example: bool, rng: np.random.Generator, hay_text: str, material: Material) -> Parts:
    tokenizer = material.tokenizer
    names = variable_names(2 * (NUM_HOPS + 1), rng)
    values = absent_numbers(2, 5, hay_text, rng)
    chain = names[: NUM_HOPS + 1]
    opening = _example(names[NUM_HOPS + 1 :], values[1]) + OPENING if has_example else OPENING
    question, answer = question_and_answer(QUESTION.format(value=values[0]), _answer(chain), tokenizer, material.chat)
    return Parts(
        opening=encode(opening, tokenizer),
        asked=tuple(needles(assignments(chain, values[0]), chain, tokenizer)),
        question=question,
        answer=answer,
        golds=tuple(chain),
        limit=OUTPUT_TOKENS,
    )


def _example(names: list[str], value: str) -> str:
    return OPENING + "".join(assignments(names, value)) + QUESTION.format(value=value) + _answer(names) + "\n\n"


def _answer(names: list[str]) -> str:
    return " " + ", ".join(names)
