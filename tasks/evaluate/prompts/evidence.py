"""Several pieces of evidence in a haystack, at a stated depth and at a stated distance from each other.

    BOS │ opening │ first … haystack … evidence … haystack … evidence … haystack … last │ question │ (answer)

`first` stands before all other needles and `last` after them, so a model that takes what is nearest to the question is wrong
at every depth. Distractors are spread over the haystack. In the control, haystack takes the place of the evidence and all else stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_schemas.evaluation_params import TaskName
from tasks.evaluate.prompts.hidden import MIN_HAYSTACK_TOKENS, spread_depths
from tasks.evaluate.prompts.joining import Frame, Joined
from tasks.evaluate.prompts.material import Haystack, Material, does_not_fit, max_boundary_shift, probe_generators, sample_seed
from tasks.evaluate.prompts.pieces import Needle, encode, needles, question_and_answer, text_of
from tasks.evaluate.prompts.prompt import TaskPrompt

FIRST, LAST = -1.0, 2.0  # depths of the needles before and after all others


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one sample hides and asks, as text. `needed[gold]` holds `answer`, the one right answer."""

    opening: str
    needed: tuple[str, ...]
    gold: int
    distractors: tuple[str, ...]
    first: str | None = None
    last: tuple[str, ...]
    question: str
    answer: str


@dataclass(frozen=True)
class Place:
    """Where the evidence of one prompt goes: `depth` 0 is as early and 1 as late as `distance` allows.

    `distance` is that between the first and the last piece, as a share of the haystack.
    """

    depth: float
    distance: float

    def depths(self, count: int) -> list[float]:
        """One for each piece of evidence, ascending, evenly spaced."""
        start = self.depth * (1 - self.distance)
        return [start + self.distance * j / max(1, count - 1) for j in range(count)]


# Of one sample: from its generator, the haystack's text, the sample's number and the material.
EvidenceMaker = Callable[[np.random.Generator, str, int, Material], Evidence]


def shortest_evidence(make: EvidenceMaker, material: Material, num_kinds: int = 1) -> int:
    """The tokens of the costliest probe and some haystack; samples are of `num_kinds` kinds in turn."""
    probes = (_Tokens.of(make(rng, "", kind, material), material) for rng in probe_generators() for kind in range(num_kinds))
    return len(material.haystack.bos) + MIN_HAYSTACK_TOKENS + max(tokens.num_fixed for tokens in probes)


def evidence_prompts(
    task: TaskName,
    make: EvidenceMaker,
    length: int,
    sample: int,
    places: Sequence[Place],
    material: Material,
    *,
    neighbours: int,
    is_swept: bool = True,
) -> list[TaskPrompt]:
    """The prompts of one sample, one for each of `places`.

    Args:
        neighbours: evenly spaced places that each piece of evidence may take; a piece moves to the end of a line or sentence by
            less than half the way to the next.
        is_swept: the place's depth is the prompt's; else the prompt has none.
    """
    seed = sample_seed(material.seed, task, length, sample)
    rng = np.random.default_rng(seed)
    hay = material.haystack.excerpt(length, rng)
    evidence = make(rng, text_of(hay.token_ids, material.tokenizer), sample, material)
    tokens = _Tokens.of(evidence, material)
    num_hay = length - len(hay.bos) - tokens.num_fixed
    if num_hay < 1:
        raise does_not_fit(task, length)
    offsets = np.random.default_rng(sample_seed(material.seed, f"{task} depths", length, 0)).random(len(tokens.distractors))
    others = list(zip(spread_depths(len(tokens.distractors), sample, offsets), tokens.distractors, strict=True))
    others += [(LAST, needle) for needle in tokens.last] + [(FIRST, needle) for needle in tokens.first]
    text = _Text(hay, num_hay, length, tokens.frame(hay.bos, material.tokenizer))
    num_needed = len(tokens.needed)
    control = text.hide(others, 0, num_hay + sum(len(needle.tokens) for needle in tokens.needed))[0]
    prompts = []
    for place in places:
        shift = max_boundary_shift(int(num_hay * (1 - place.distance)), neighbours)
        hidden = [*zip(place.depths(num_needed), tokens.needed, strict=True), *others]
        joined, starts = text.hide(hidden, shift, num_hay)
        prompts.append(
            TaskPrompt(
                task=task,
                length=length,
                depth=place.depth if is_swept else None,
                position=starts[evidence.gold] / len(joined.tokens),
                sample=sample,
                seed=seed,
                tokens=joined.tokens,
                golds=(evidence.answer,),
                answer=joined.answer,
                control=control.tokens,
                is_forced=True,
                max_new_tokens=len(joined.answer),
                num_evidence=num_needed,
                distance=place.distance if num_needed > 1 else None,
                distance_tokens=starts[num_needed - 1] - starts[0] if num_needed > 1 else None,
            )
        )
    return prompts


@dataclass(frozen=True)
class _Tokens:
    """An `Evidence` as tokens; `first` holds one needle or none."""

    opening: np.ndarray
    needed: tuple[Needle, ...]
    distractors: tuple[Needle, ...]
    first: tuple[Needle, ...]
    last: tuple[Needle, ...]
    question: np.ndarray
    answer: np.ndarray

    @classmethod
    def of(cls, evidence: Evidence, material: Material) -> _Tokens:
        first = () if evidence.first is None else (evidence.first,)
        texts = [*evidence.needed, *evidence.distractors, *first, *evidence.last]
        golds = [text.strip() for text in texts]
        golds[evidence.gold] = evidence.answer
        hidden = needles(texts, golds, material.tokenizer)
        num_needed, end = len(evidence.needed), len(evidence.needed) + len(evidence.distractors)
        question, answer = question_and_answer(evidence.question, f" {evidence.answer}", material.tokenizer, material.chat)
        return cls(
            encode(evidence.opening, material.tokenizer),
            tuple(hidden[:num_needed]),
            tuple(hidden[num_needed:end]),
            tuple(hidden[end : end + len(first)]),
            tuple(hidden[end + len(first) :]),
            question,
            answer,
        )

    def frame(self, bos: np.ndarray, tokenizer: Any) -> Frame:
        front = np.concatenate([bos, self.opening])
        return Frame(front=front, question=self.question, answer=self.answer, reserved=len(self.answer), tokenizer=tokenizer)

    @property
    def num_fixed(self) -> int:
        """All but BOS and haystack."""
        hidden = (*self.needed, *self.distractors, *self.first, *self.last)
        return len(self.opening) + sum(len(needle.tokens) for needle in hidden) + len(self.question) + len(self.answer)


@dataclass(frozen=True)
class _Text:
    """A haystack for needles to be hidden in, of about `num_tokens` tokens: as many as make prompt and answer `length` tokens."""

    hay: Haystack
    num_tokens: int
    length: int
    frame: Frame

    def hide(self, placed: Sequence[tuple[float, Needle]], max_shift: int, guess: int) -> tuple[Joined, list[int]]:
        """The prompt with the needles at their depths, and where each one's gold begins; it may hold `guess` tokens of haystack."""
        cuts = [self.hay.cut(self.num_tokens, min(1.0, max(0.0, depth)), max_shift) for depth, _ in placed]
        order = sorted(range(len(placed)), key=lambda i: (cuts[i], placed[i][0]))
        in_order = [(cuts[i], placed[i][1]) for i in order]
        joined, _ = self.frame.filled(self.hay, in_order, self.length, num_hay=self.num_tokens, guess=guess)
        starts = dict(zip(order, joined.starts, strict=True))
        return joined, [starts[i] for i in range(len(placed))]
