"""Key-value retrieval of *Lost in the Middle* (Liu et al. 2023, arXiv 2307.03172, section 3.1): a JSON object of random UUIDs.

As many pairs as fit the length; the value of one key is asked for. The gold pair is put at evenly spaced places. All depths of a
sample have the same object and ask for different keys (random pairs are exchangeable), so they differ only in the question.
The control has another value in the asked pair.

Where a pair for each depth does not fit the run's shortest length in UUIDs, keys and values have eight hexadecimal digits.

`short_key_value` is the same with keys of one invented word and values of four digits, for models that are too small to copy a
UUID. Its values are drawn with repetition, so a guess is right once in 9,000 times at every length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import numpy as np

from tasks.evaluate.prompts.joining import Joined, join, most_that_fit
from tasks.evaluate.prompts.material import Material, does_not_fit, probe_generators, sample_seed
from tasks.evaluate.prompts.pieces import Needle, encode, encode_each, needles, questions_and_answers
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.words import invented_words

OPENING = "Extract the value corresponding to the specified key in the JSON object below.\n\n{"
PAIR = '\n "{key}": "{value}",'
# The question ends like the pair up to its value: the answer is then the value alone, whatever a model would quote it with.
QUESTION = '\n}}\n\nKey: "{key}"\nCorresponding value:\n "{key}": "'
_DRAWN_AT_ONCE = 32
Form = Literal["uuid", "hex", "short"]
_TASKS: dict[Form, Literal["key_value", "short_key_value"]] = {
    "uuid": "key_value", "hex": "key_value", "short": "short_key_value"
}  # fmt: skip


@dataclass(frozen=True)
class _Pair:
    """A pair, the same key with another value, and the question for it: as tokens."""

    key: str
    value: str
    given: Needle
    changed: np.ndarray
    question: np.ndarray
    answer: np.ndarray

    @property
    def num_tokens(self) -> int:
        return max(len(self.given.tokens), len(self.changed))

    @property
    def num_asking(self) -> int:
        return len(self.question) + len(self.answer)


def key_value_prompts(length: int, material: Material) -> list[TaskPrompt]:
    return _prompts(length, _long_form(material), material)


def shortest_key_value(material: Material) -> int:
    return _shortest(_long_form(material), material)


def short_key_value_prompts(length: int, material: Material) -> list[TaskPrompt]:
    return _prompts(length, "short", material)


def shortest_short_key_value(material: Material) -> int:
    return _shortest("short", material)


def _prompts(length: int, form: Form, material: Material) -> list[TaskPrompt]:
    return [prompt for sample in range(material.num_samples) for prompt in _sample_prompts(length, sample, form, material)]


def _long_form(material: Material) -> Form:
    return "uuid" if _shortest("uuid", material) <= material.form_limit(_shortest("hex", material)) else "hex"


def _shortest(form: Form, material: Material) -> int:
    """A pair for each depth, each as long as the longest probe."""
    probes = [pair for rng in probe_generators() for pair in _draw(1, form, rng, material)]
    pairs = material.num_depths * max(pair.num_tokens for pair in probes)
    return len(_front(material)) + pairs + max(pair.num_asking for pair in probes)


def _front(material: Material) -> np.ndarray:
    return np.concatenate([material.haystack.bos, encode(OPENING, material.tokenizer)])


def _sample_prompts(length: int, sample: int, form: Form, material: Material) -> Iterator[TaskPrompt]:
    seed = sample_seed(material.seed, _TASKS[form], length, sample)
    front = _front(material)
    drawn = _fill(length - len(front), form, np.random.default_rng(seed), material)

    def needed(count: int) -> int:
        longest = max(range(material.num_depths), key=lambda i: drawn[_asked(material.depths[i], count)].num_asking)
        ((joined, control),) = _joined_pairs(front, drawn[:count], material.depths[longest : longest + 1], material)
        return max(len(joined.tokens), len(control.tokens)) + len(joined.answer)

    by_pieces = _count(drawn, length - len(front))
    count = most_that_fit(by_pieces, material.num_depths, len(drawn), length, needed)
    while count >= material.num_depths:
        made = _joined_pairs(front, drawn[:count], material.depths, material)
        if max(len(joined.tokens) + len(joined.answer) for pair in made for joined in pair) <= length:
            break
        count -= 1
    if count < material.num_depths:
        raise does_not_fit(_TASKS[form], length)
    pairs = drawn[:count]
    for depth, (joined, control) in zip(material.depths, made, strict=True):
        pair = pairs[_asked(depth, count)]
        yield TaskPrompt(
            task=_TASKS[form],
            length=length,
            depth=depth,
            position=joined.starts[0] / len(joined.tokens),
            sample=sample,
            seed=seed,
            tokens=joined.tokens,
            golds=(pair.value,),
            answer=joined.answer,
            control=control.tokens,
            is_forced=True,
            max_new_tokens=len(joined.answer),
        )


def _fill(budget: int, form: Form, rng: np.random.Generator, material: Material) -> list[_Pair]:
    """More pairs than fit, no key twice."""
    pairs: dict[str, _Pair] = {}
    num_tokens = 0
    while num_tokens < 1.25 * budget and len(pairs) < budget:  # a pair has one token at least
        new = {pair.key: pair for pair in _draw(_DRAWN_AT_ONCE, form, rng, material) if pair.key not in pairs}
        if not new:
            raise does_not_fit(_TASKS[form], budget)
        pairs |= new
        num_tokens += sum(pair.num_tokens for pair in new.values())
    return list(pairs.values())


def _count(pairs: list[_Pair], budget: int) -> int:
    """How many of the pairs fit together with the question for any of them, by the sizes of the pieces."""
    if not pairs:
        return 0
    ends = np.cumsum([pair.num_tokens for pair in pairs]) + max(pair.num_asking for pair in pairs)
    return int(np.searchsorted(ends, budget, side="right"))


def _asked(depth: float, count: int) -> int:
    """The pair that stands at a depth."""
    return round(depth * (count - 1))


def _joined_pairs(
    front: np.ndarray, pairs: list[_Pair], depths: Sequence[float], material: Material
) -> list[tuple[Joined, Joined]]:
    """The prompt and the control of each depth. The prompt's mark is the asked value."""
    given = [pair.given.tokens for pair in pairs]
    starts = np.cumsum([len(front), *map(len, given)]).tolist()
    made = []
    for depth in depths:
        asked = _asked(depth, len(pairs))
        pair, mark = pairs[asked], starts[asked] + pairs[asked].given.gold_at
        joined = join([front, *given, pair.question], pair.answer, material.tokenizer, [mark])
        changed = [front, *given[:asked], pair.changed, *given[asked + 1 :], pair.question]
        made.append((joined, join(changed, pair.answer, material.tokenizer)))
    return made


def _draw(count: int, form: Form, rng: np.random.Generator, material: Material) -> list[_Pair]:
    tokenizer = material.tokenizer
    keys, values, others = _names(count, form, rng)
    given = needles([PAIR.format(key=k, value=v) for k, v in zip(keys, values, strict=True)], values, tokenizer)
    changed = encode_each([PAIR.format(key=k, value=o) for k, o in zip(keys, others, strict=True)], tokenizer)
    asking = questions_and_answers([QUESTION.format(key=key) for key in keys], values, tokenizer, material.chat)
    return [
        _Pair(key, value, pair, other, question, answer)
        for key, value, pair, other, (question, answer) in zip(keys, values, given, changed, asking, strict=True)
    ]


def _names(count: int, form: Form, rng: np.random.Generator) -> tuple[list[str], list[str], list[str]]:
    """Keys, values, and another value for each key."""
    if form == "short":
        values = rng.integers(1000, 10_000, count)
        others = 1000 + (values - 1000 + rng.integers(1, 9000, count)) % 9000
        return invented_words(count, rng), [str(value) for value in values.tolist()], [str(value) for value in others.tolist()]
    if form == "uuid":
        names = [str(UUID(bytes=rng.bytes(16), version=4)) for _ in range(3 * count)]
    else:
        names = [f"{number:08x}" for number in rng.choice(2**32, 3 * count, replace=False).tolist()]
    return names[:count], names[count : 2 * count], names[2 * count :]
