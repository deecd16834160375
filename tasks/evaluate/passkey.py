"""Passkey retrieval: a sentence with a random number hidden in held-out text, asked for at the end.

After Mohtashami & Jaggi 2023 (arXiv 2305.16300, section 4.2), with three differences: the haystack is real held-out text,
the needle stands at a grid of depths, and each prompt has a *control* in which haystack text takes the needle's place.
The log-probability of the answer with the needle minus without it (nats) moves long before a small model gets all digits
right.

Prompt and answer are exactly `length` tokens. One sample uses the same haystack, key and question at every depth: the
depths of a sample are paired, and they share one control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from tasks.evaluate.heldout import HeldOutDocument

# A comment line is at home in source code and can be read in prose; the words in front of the key in the question are
# those in front of it in the needle, so that a model which can only continue a repeated phrase can answer too.
NEEDLE = "\n# The pass key is {key}. Remember it. The pass key is {key}.\n"
QUESTION = "\n# What is the pass key? The pass key is"
ANSWER = " {key}"
MIN_HAYSTACK_TOKENS = 16
# A line or sentence boundary is used when one is this near (as a share of the haystack), else the exact position.
MAX_BOUNDARY_SHIFT = 0.05


@dataclass(frozen=True)
class PasskeySample:
    """One haystack and key, at each depth. All arrays are int32 token ids.

    `prompts[i]` has the needle at `depths[i]`; `control` has none. Each ends with the `num_answer_tokens` tokens of the
    answer and has exactly `length` tokens.
    """

    sample: int
    length: int
    seed: int
    gold: str
    depths: tuple[float, ...]
    prompts: tuple[np.ndarray, ...]
    control: np.ndarray
    num_answer_tokens: int


@dataclass(frozen=True)
class _KeyPieces:
    needle: np.ndarray
    ending: np.ndarray  # question and answer
    num_answer_tokens: int


@dataclass(frozen=True)
class Haystack:
    """Held-out documents end to end: `token_ids` int32 [tokens], `is_boundary` bool [tokens], `bos` int32 [0 or 1]."""

    token_ids: np.ndarray
    is_boundary: np.ndarray
    bos: np.ndarray

    @classmethod
    def of(cls, documents: Sequence[HeldOutDocument]) -> Haystack:
        bodies = [d for d in documents if len(d.token_ids)]
        if not bodies:
            raise UserError("There is no held-out text to hide a pass key in: raise corpus.heldout_fraction or add documents.")
        return cls(
            np.concatenate([d.token_ids[d.num_leading :] for d in bodies]),
            np.concatenate([d.is_boundary[d.num_leading :] for d in bodies]),
            bodies[0].token_ids[: bodies[0].num_leading],
        )


def depth_grid(num_depths: int) -> tuple[float, ...]:
    """Evenly spaced depths from 0 (needle first) to 1 (needle right before the question)."""
    return tuple(round(float(d), 6) for d in np.linspace(0, 1, num_depths))


def passkey_lengths(requested: Sequence[int] | None, default: Sequence[int], tokenizer: Any) -> tuple[int, ...]:
    """The lengths of the grid, ascending: as requested, else those of `default` that hold needle and question.

    Raises:
        UserError: a requested length, or every default one, is too short.
    """
    shortest = min_length(tokenizer)
    if requested:
        lengths = tuple(sorted(set(requested)))
        too_short = [n for n in lengths if n < shortest]
    else:
        lengths = tuple(n for n in sorted(set(default)) if n >= shortest)
        too_short = [] if lengths else [max(default)]
    if too_short:
        raise UserError(
            f"The passkey length of {too_short[0]} tokens is too short for needle, question and answer: "
            f"give evaluation.passkey_lengths of at least {shortest}."
        )
    return lengths


def min_length(tokenizer: Any) -> int:
    """The shortest prompt with answer: its fixed parts and some haystack, for the keys that take most tokens."""
    pieces = [_pieces(key, tokenizer) for key in ("10000", "48213", "73956", "99999")]
    return 1 + MIN_HAYSTACK_TOKENS + max(len(p.needle) + len(p.ending) for p in pieces)


def passkey_samples(
    haystack: Haystack, tokenizer: Any, *, length: int, depths: Sequence[float], num_samples: int, seed: int
) -> list[PasskeySample]:
    """`num_samples` keys at every depth, a pure function of the arguments and so the same for every model.

    Raises:
        UserError: the prompt does not fit `length`, or the held-out text is shorter than a prompt.
    """
    build = partial(_sample, haystack, tokenizer, length, tuple(depths))
    return [build(index, _sample_seed(seed, length, index)) for index in range(num_samples)]


def _sample_seed(seed: int, length: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, length, index]).generate_state(1)[0])


def _sample(haystack: Haystack, tokenizer: Any, length: int, depths: tuple[float, ...], index: int, seed: int) -> PasskeySample:
    rng = np.random.default_rng(seed)
    key = str(rng.integers(10_000, 100_000))
    pieces = _pieces(key, tokenizer)
    num_control = length - len(haystack.bos) - len(pieces.ending)
    num_hay = num_control - len(pieces.needle)
    if num_hay < 1:
        raise UserError(
            f"A passkey prompt does not fit {length} tokens: give evaluation.passkey_lengths of at least {min_length(tokenizer)}."
        )
    start = _start(haystack, num_control, rng)
    hay = haystack.token_ids[start : start + num_control]
    cuts = [_cut(haystack.is_boundary[start : start + num_hay], depth) for depth in depths]
    prompts = tuple(np.concatenate([haystack.bos, hay[:cut], pieces.needle, hay[cut:num_hay], pieces.ending]) for cut in cuts)
    control = np.concatenate([haystack.bos, hay, pieces.ending])
    return PasskeySample(index, length, seed, key, depths, prompts, control, pieces.num_answer_tokens)


def _start(haystack: Haystack, num_tokens: int, rng: np.random.Generator) -> int:
    """A random place with `num_tokens` tokens after it, moved on to the next line or sentence where one begins in time."""
    last = len(haystack.token_ids) - num_tokens
    if last < 0:
        raise UserError(
            f"The held-out documents looked at have {len(haystack.token_ids)} tokens together and a passkey prompt needs "
            f"{num_tokens}: add longer documents or lower evaluation.passkey_lengths."
        )
    start = int(rng.integers(0, last + 1))
    if start == 0:
        return 0
    following = np.flatnonzero(haystack.is_boundary[start - 1 : last])
    return start + int(following[0]) if len(following) else start


def _cut(is_boundary: np.ndarray, depth: float) -> int:
    """How many of the haystack's tokens go in front of the needle, for a haystack of `len(is_boundary)` tokens."""
    exact = round(depth * len(is_boundary))
    candidates = np.concatenate([[0], np.flatnonzero(is_boundary) + 1, [len(is_boundary)]])
    nearest = int(candidates[np.argmin(np.abs(candidates - exact))])
    return nearest if abs(nearest - exact) <= MAX_BOUNDARY_SHIFT * len(is_boundary) else exact


def _pieces(key: str, tokenizer: Any) -> _KeyPieces:
    """Needle, question and answer as tokens. The answer's tokens are those that hold a digit of the key."""
    needle = tokenizer(NEEDLE.format(key=key), add_special_tokens=False)["input_ids"]
    text = QUESTION + ANSWER.format(key=key)
    ending = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    key_start = len(text) - len(key)
    num_answer = sum(end > key_start for _, end in ending["offset_mapping"])
    return _KeyPieces(np.asarray(needle, np.int32), np.asarray(ending["input_ids"], np.int32), num_answer)
