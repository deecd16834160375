"""Several pieces of evidence in a haystack, at a stated depth and at a stated distance from each other.

    BOS │ opening │ first … haystack … evidence … haystack … evidence … haystack … last │ question │ (answer)

`first` stands before all other needles and `last` after them, so a model that takes what is nearest to the question is wrong
at every depth. Distractors are spread over the haystack. In the control, haystack takes the place of the evidence and all else stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_schemas.evaluation_params import TaskName
from tasks.evaluate.prompts.hidden import MIN_HAYSTACK_TOKENS, spread_depths
from tasks.evaluate.prompts.material import Haystack, Material, does_not_fit, max_boundary_shift, probe_generators, sample_seed
from tasks.evaluate.prompts.pieces import Needle, encode, needles, question_and_answer
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
    evidence = make(rng, material.tokenizer.decode(hay.token_ids), sample, material)
    tokens = _Tokens.of(evidence, material)
    num_hay = length - len(hay.bos) - tokens.num_fixed
    if num_hay < 1:
        raise does_not_fit(task, length)
    offsets = np.random.default_rng(sample_seed(material.seed, f"{task} depths", length, 0)).random(len(tokens.distractors))
    others = list(zip(spread_depths(len(tokens.distractors), sample, offsets), tokens.distractors, strict=True))
    others += [(LAST, needle) for needle in tokens.last] + [(FIRST, needle) for needle in tokens.first]
    text = _Text(hay, num_hay)
    spare = hay.token_ids[num_hay:][: sum(len(needle.tokens) for needle in tokens.needed)]
    control = _framed(np.concatenate([text.hide(others, 0)[0], spare]), hay.bos, tokens)
    prompts = []
    for place in places:
        shift = max_boundary_shift(int(num_hay * (1 - place.distance)), neighbours)
        depths = place.depths(len(tokens.needed))
        body, starts = text.hide([*zip(depths, tokens.needed, strict=True), *others], shift)
        window = _framed(body, hay.bos, tokens)
        front = len(hay.bos) + len(tokens.opening)
        several = len(tokens.needed) > 1
        prompts.append(
            TaskPrompt(
                task=task,
                length=length,
                depth=place.depth if is_swept else None,
                position=(front + starts[evidence.gold]) / len(window),
                sample=sample,
                seed=seed,
                tokens=window,
                golds=(evidence.answer,),
                answer=tokens.answer,
                control=control,
                is_forced=True,
                max_new_tokens=len(tokens.answer),
                num_evidence=len(tokens.needed),
                distance=place.distance if several else None,
                distance_tokens=starts[len(tokens.needed) - 1] - starts[0] if several else None,
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
        question, answer = question_and_answer(evidence.question, f" {evidence.answer}", material.tokenizer)
        return cls(
            encode(evidence.opening, material.tokenizer),
            tuple(hidden[:num_needed]),
            tuple(hidden[num_needed:end]),
            tuple(hidden[end : end + len(first)]),
            tuple(hidden[end + len(first) :]),
            question,
            answer,
        )

    @property
    def num_fixed(self) -> int:
        """All but BOS and haystack."""
        hidden = (*self.needed, *self.distractors, *self.first, *self.last)
        return len(self.opening) + sum(len(needle.tokens) for needle in hidden) + len(self.question) + len(self.answer)


@dataclass(frozen=True)
class _Text:
    """The first `num_tokens` tokens of a haystack, for needles to be hidden in."""

    hay: Haystack
    num_tokens: int

    def hide(self, placed: Sequence[tuple[float, Needle]], max_shift: int) -> tuple[np.ndarray, list[int]]:
        """The text with the needles at their depths, and where each one's gold begins."""
        cuts = [self.hay.cut(self.num_tokens, min(1.0, max(0.0, depth)), max_shift) for depth, _ in placed]
        pieces: list[np.ndarray] = []
        starts = [0] * len(placed)
        written = taken = 0
        for i in sorted(range(len(placed)), key=lambda i: (cuts[i], placed[i][0])):
            needle = placed[i][1]
            pieces += [self.hay.token_ids[taken : cuts[i]], needle.tokens]
            written += cuts[i] - taken
            starts[i] = written + needle.gold_at
            written, taken = written + len(needle.tokens), cuts[i]
        return np.concatenate([*pieces, self.hay.token_ids[taken : self.num_tokens]]), starts


def _framed(body: np.ndarray, bos: np.ndarray, tokens: _Tokens) -> np.ndarray:
    return np.concatenate([bos, tokens.opening, body, tokens.question])
