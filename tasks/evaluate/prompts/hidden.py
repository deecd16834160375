"""Needles in a haystack: the frame that passkey, RULER's needle tasks and variable tracking have in common.

    BOS │ opening │ haystack … needle … haystack │ question │ (answer)

Prompt and answer fill `length` exactly: the haystack takes what the other parts leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_schemas.evaluation_params import TaskName
from tasks.evaluate.prompts.joining import Frame, Joined
from tasks.evaluate.prompts.material import Haystack, Material, does_not_fit, max_boundary_shift, probe_generators, sample_seed
from tasks.evaluate.prompts.pieces import Needle, generation_limit, text_of
from tasks.evaluate.prompts.prompt import TaskPrompt

MIN_HAYSTACK_TOKENS = 16
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What one sample hides and asks. Arrays are int32 token ids.

    Without `limit` there is one asked needle, which is swept over the depths, and the answer is forced. With it the asked needles
    are spread over the haystack and at most `limit` tokens are generated.
    """

    asked: tuple[Needle, ...]
    question: np.ndarray
    answer: np.ndarray
    golds: tuple[str, ...]
    opening: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    distractors: tuple[Needle, ...] = ()
    limit: int | None = None

    @property
    def max_new_tokens(self) -> int:
        return len(self.answer) if self.limit is None else generation_limit(self.answer, self.limit)

    @property
    def num_tokens(self) -> int:
        """All but BOS and haystack."""
        needles = sum(len(n.tokens) for n in (*self.asked, *self.distractors))
        return len(self.opening) + needles + len(self.question) + max(len(self.answer), self.max_new_tokens)


# The parts of one sample: from its generator, the haystack's text (for numbers that must not occur in it) and the material.
PartsMaker = Callable[[np.random.Generator, str, Material], Parts]


def shortest_hidden(make_parts: PartsMaker, material: Material) -> int:
    """The tokens of the costliest probe and some haystack; a sample that takes more gets less haystack."""
    probes = (make_parts(rng, "", material) for rng in probe_generators())
    return len(material.haystack.bos) + MIN_HAYSTACK_TOKENS + max(parts.num_tokens for parts in probes)


def hidden_prompts(task: TaskName, make_parts: PartsMaker, length: int, material: Material) -> list[TaskPrompt]:
    """The prompts of every sample: one for each depth, or a single one where several needles are asked for."""
    offsets = np.random.default_rng(sample_seed(material.seed, f"{task} depths", length, 0)).random(64)
    prompts: list[TaskPrompt] = []
    for index in range(material.num_samples):
        seed = sample_seed(material.seed, task, length, index)
        rng = np.random.default_rng(seed)
        hay = material.haystack.excerpt(length, rng)
        parts = make_parts(rng, text_of(hay.token_ids, material.tokenizer), material)
        prompts += _Sample(task, length, index, seed, hay, parts, offsets, material.depths, material.tokenizer).prompts()
    return prompts


def spread_depths(num_needles: int, sample: int, offsets: np.ndarray) -> list[float]:
    """One depth in each of `num_needles` equal parts of the haystack, ascending.

    Over the samples each moves through its part by the golden ratio, which fills it evenly for any number of samples.
    """
    moved = (offsets[:num_needles] + sample * GOLDEN_RATIO) % 1
    return [float((j + moved[j]) / num_needles) for j in range(num_needles)]


@dataclass(frozen=True)
class _Sample:
    task: TaskName
    length: int
    index: int
    seed: int
    hay: Haystack
    parts: Parts
    offsets: np.ndarray
    depths: tuple[float, ...]
    tokenizer: Any

    def prompts(self) -> list[TaskPrompt]:
        if self.num_hay < 1:
            raise does_not_fit(self.task, self.length)
        parts = self.parts
        distractor_depths = spread_depths(len(parts.distractors), self.index, self.offsets)
        others = list(zip(distractor_depths, parts.distractors, strict=True))
        num_asked = sum(len(n.tokens) for n in parts.asked)
        control, _, _ = self._filled(others, self.num_hay + num_asked)
        if parts.limit is None:
            prompts, guess = [], self.num_hay
            for depth in self.depths:
                prompt, guess = self._prompt([(depth, parts.asked[0]), *others], depth, control.tokens, guess)
                prompts.append(prompt)
            return prompts
        # Apart from the distractors' offsets, so that needles and distractors do not move together.
        asked_depths = spread_depths(len(parts.asked), self.index, self.offsets[32:])
        asked = [*zip(asked_depths, parts.asked, strict=True), *others]
        return [self._prompt(asked, None, control.tokens, self.num_hay)[0]]

    @property
    def num_hay(self) -> int:
        return self.length - len(self.hay.bos) - self.parts.num_tokens

    @property
    def max_shift(self) -> int:
        """Only needles that are swept have a neighbouring depth to keep away from."""
        return max_boundary_shift(self.num_hay, len(self.depths) if self.parts.limit is None else 2)

    def _prompt(
        self, needles: list[tuple[float, Needle]], depth: float | None, control: np.ndarray, guess: int
    ) -> tuple[TaskPrompt, int]:
        """The prompt, and how much haystack it holds."""
        parts = self.parts
        joined, gold_at, num_shown = self._filled(needles, guess)
        prompt = TaskPrompt(
            task=self.task,
            length=self.length,
            depth=depth,
            position=None if depth is None else gold_at[0] / len(joined.tokens),
            sample=self.index,
            seed=self.seed,
            tokens=joined.tokens,
            golds=parts.golds,
            answer=joined.answer,
            control=control,
            is_forced=parts.limit is None,
            max_new_tokens=max(parts.max_new_tokens, len(joined.answer)),
        )
        return prompt, num_shown

    def _filled(self, needles: list[tuple[float, Needle]], guess: int) -> tuple[Joined, list[int], int]:
        """The haystack with the needles, where each one's gold begins, and how much haystack it holds."""
        cuts = [self.hay.cut(self.num_hay, depth, self.max_shift) for depth, _ in needles]
        order = sorted(range(len(needles)), key=lambda i: (cuts[i], needles[i][0]))
        placed = [(cuts[i], needles[i][1]) for i in order]
        joined, num_shown = self._frame.filled(self.hay, placed, self.length, num_hay=self.num_hay, guess=guess)
        return joined, [joined.starts[order.index(i)] for i in range(len(needles))], num_shown

    @property
    def _frame(self) -> Frame:
        parts = self.parts
        front = np.concatenate([self.hay.bos, parts.opening])
        reserved = parts.max_new_tokens
        return Frame(front=front, question=parts.question, answer=parts.answer, reserved=reserved, tokenizer=self.tokenizer)
