"""A list of arrows that fills the prompt: which nodes does a walk of k arrows reach, or which nodes lead to one?

After OpenAI's GraphWalks (2025; its prompts are not used). Samples ask in turn for the nodes exactly one, two and three
arrows away and for the nodes with an arrow to a given one. The score is 1 when the answer names exactly the right set. Right nodes occur
only where they answer; in the control others have their places, so all else stays. Many other nodes occur once, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.evaluate.prompts.joining import Joined, join, most_that_fit
from tasks.evaluate.prompts.material import Material, does_not_fit, probe_generators, sample_seed
from tasks.evaluate.prompts.pieces import encode, encode_each, generation_limit, question_and_answer
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.words import invented_words

STEPS = (1, 2, 3)
NUM_KINDS = len(STEPS) + 1  # the last one asks for parents
MOST_REACHED = 3
FEWEST_OTHERS = 8  # arrows beside the needed ones
OUTPUT_TOKENS = 64

OPENING = "# A list of arrows between nodes.\n"
ARROW = "\n{source} -> {target}"
WALK_QUESTION = "\n\n# Which nodes are exactly {steps} from {start}? They are:"
PARENTS_QUESTION = "\n\n# Which nodes have an arrow to {start}? They are:"

Edge = tuple[str, str]


@dataclass(frozen=True)
class Walk:
    """A question about a graph: `needed` edges give the set `golds`; `others` change nothing, however many there are.

    `changed` are the needed edges of the control, with other nodes in the places of the golds.
    """

    needed: tuple[Edge, ...]
    changed: tuple[Edge, ...]
    others: tuple[Edge, ...]
    golds: tuple[str, ...]
    question: str


def make_walk(kind: int, num_others: int, rng: np.random.Generator) -> Walk:
    """A question of the kind 0..NUM_KINDS-1, with `num_others` edges beside the needed ones."""
    num_reached = int(rng.integers(1, MOST_REACHED + 1))
    steps = STEPS[kind] if kind < len(STEPS) else 0
    names = invented_words(1 + max(1, steps) * MOST_REACHED + MOST_REACHED + num_others, rng)
    start, names = names[0], names[1:]
    spare, names = names[:MOST_REACHED], names[MOST_REACHED:]
    if steps:
        needed, golds, names = _tree(start, steps, num_reached, names, rng)
        counted = "1 arrow" if steps == 1 else f"{steps} arrows"
        question = WALK_QUESTION.format(steps=counted, start=start)
    else:
        golds, names = names[:num_reached], names[num_reached:]
        needed = [(gold, start) for gold in golds]
        question = PARENTS_QUESTION.format(start=start)
    swap = dict(zip(golds, spare, strict=False))
    changed = tuple((swap.get(a, a), swap.get(b, b)) for a, b in needed)
    others = _others(start, needed, golds, names[:num_others], num_others, bool(steps), rng)
    return Walk(tuple(needed), changed, others, tuple(golds), question)


def _tree(
    start: str, steps: int, num_reached: int, names: list[str], rng: np.random.Generator
) -> tuple[list[Edge], list[str], list[str]]:
    """Edges of a tree with `num_reached` leaves, all `steps` edges below `start`; the leaves; and the names left."""
    edges: list[Edge] = []
    level = [start]
    for step in range(1, steps + 1):
        size = num_reached if step == steps else int(rng.integers(len(level), num_reached + 1))
        children, names = names[:size], names[size:]
        parents = [*level, *(level[i] for i in rng.integers(0, len(level), size - len(level)).tolist())]
        edges += list(zip(parents, children, strict=True))
        level = children
    return edges, level, names


def _others(
    start: str,
    needed: Sequence[Edge],
    golds: Sequence[str],
    names: Sequence[str],
    count: int,
    is_walk: bool,
    rng: np.random.Generator,
) -> tuple[Edge, ...]:
    """Edges that leave the answer as it is: on walks no edge leaves a node of the tree, else none leads to `start`."""
    inner = [node for node in dict.fromkeys(node for edge in needed for node in edge) if node not in golds]
    near, far = rng.random(count) < 0.15, rng.integers(0, len(names), (count, 2))  # some touch the nodes that are asked about
    edges: list[Edge] = []
    for i in range(count):
        a, b = names[int(far[i, 0])], names[int(far[i, 1])]
        if near[i]:
            a, b = (a, inner[i % len(inner)]) if is_walk else (start, b)
        edges.append((a, b))
    return tuple(edges)


def score_walk(output: str, golds: Sequence[str]) -> float:
    """1 when the first line of `output` names exactly `golds`, in any order, else 0."""
    first_line = output.strip().split("\n", 1)[0]
    return float(set(re.findall(r"\w+", first_line.casefold())) - {"and"} == set(golds))


def graph_prompts(length: int, material: Material) -> list[TaskPrompt]:
    return [_prompt(length, sample, material) for sample in range(material.num_samples)]


def shortest_graph(material: Material) -> int:
    kinds = range(NUM_KINDS)
    probes = (_Encoded.of(make_walk(kind, FEWEST_OTHERS, rng), material) for rng in probe_generators() for kind in kinds)
    return max(one.num_fixed + sum(map(len, one.others)) for one in probes)


@dataclass(frozen=True)
class _Encoded:
    """A walk as tokens."""

    front: np.ndarray
    needed: list[np.ndarray]
    changed: list[np.ndarray]
    others: list[np.ndarray]
    question: np.ndarray
    answer: np.ndarray

    @classmethod
    def of(cls, walk: Walk, material: Material) -> _Encoded:
        tokenizer = material.tokenizer
        needed, changed, others = (
            encode_each([ARROW.format(source=a, target=b) for a, b in edges], tokenizer)
            for edges in (walk.needed, walk.changed, walk.others)
        )
        question, answer = question_and_answer(walk.question, " " + ", ".join(walk.golds), tokenizer, material.chat)
        front = np.concatenate([material.haystack.bos, encode(OPENING, tokenizer)])
        return cls(front, needed, changed, others, question, answer)

    @property
    def max_new_tokens(self) -> int:
        return generation_limit(self.answer, OUTPUT_TOKENS)

    @property
    def num_fixed(self) -> int:
        """Tokens of prompt and output without other edges; the longer of the needed and the changed edges counts."""
        edges = max(sum(map(len, self.needed)), sum(map(len, self.changed)))
        return len(self.front) + edges + len(self.question) + self.max_new_tokens


def _prompt(length: int, sample: int, material: Material) -> TaskPrompt:
    seed = sample_seed(material.seed, "graph_walk", length, sample)
    rng = np.random.default_rng(seed)
    shortest_edge = min(
        map(len, encode_each([ARROW.format(source=n, target=n) for n in invented_words(64, rng)], material.tokenizer))
    )
    walk = make_walk(sample % NUM_KINDS, max(FEWEST_OTHERS, length // max(1, shortest_edge)), rng)
    one = _Encoded.of(walk, material)
    order = rng.permutation(len(one.needed) + len(one.others))
    made: dict[int, tuple[Joined, Joined]] = {}

    def needed(num_others: int) -> int:
        made[num_others] = (
            _listed(one, one.needed, num_others, order, material),
            _listed(one, one.changed, num_others, order, material),
        )
        return max(len(joined.tokens) for joined in made[num_others]) + one.max_new_tokens

    guess = int(np.searchsorted(np.cumsum([0, *map(len, one.others)]), length - one.num_fixed, side="right")) - 1
    num_others = most_that_fit(guess, FEWEST_OTHERS, len(one.others), length, needed)
    if num_others < FEWEST_OTHERS:
        raise does_not_fit("graph_walk", length)
    asked, control = made[num_others]
    starts = asked.starts
    return TaskPrompt(
        task="graph_walk",
        length=length,
        depth=None,
        position=None,
        sample=sample,
        seed=seed,
        tokens=asked.tokens,
        golds=walk.golds,
        answer=asked.answer,
        control=control.tokens,
        is_forced=False,
        max_new_tokens=one.max_new_tokens,
        num_evidence=len(one.needed),
        distance_tokens=starts[-1] - starts[0] if len(starts) > 1 else None,
    )


def _listed(one: _Encoded, needed: list[np.ndarray], num_others: int, order: np.ndarray, material: Material) -> Joined:
    """The prompt with the edges in this order, marked where each needed one begins."""
    edges = [*needed, *one.others[:num_others]]
    pieces, marks = [one.front], []
    written = len(one.front)
    for i in order[order < len(edges)].tolist():
        if i < len(needed):
            marks.append(written)
        pieces.append(edges[i])
        written += len(edges[i])
    return join([*pieces, one.question], one.answer, material.tokenizer, marks)
