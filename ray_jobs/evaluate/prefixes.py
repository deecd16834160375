"""Token sequences with common beginnings, as a tree in which each beginning stands once.

    sequences                        branches
    hay hay hay hay question         0: hay hay hay hay question
    hay hay hay needle hay question  1:             needle hay question    of 0, from position 3
    hay needle hay hay question      2:     needle hay hay question        of 0, from position 1

A branch is the rest of one sequence behind what it shares with its parent, so a forward pass over all branches computes
every beginning once. Each branch attends to itself and to the `pieces` of the branches it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Shorter beginnings, such as a BOS, are computed again: to join their attention would take longer.
MIN_SHARED = 16


@dataclass(frozen=True)
class Branch:
    """Tokens `start`..`end`-1 of sequence `sequence`; those in front are the first ones of `parent` and its parents."""

    sequence: int
    parent: int | None
    start: int
    end: int


@dataclass(frozen=True)
class Tree:
    """Parents come before their branches. Sequence i ends within branch `leaves[i]`."""

    branches: tuple[Branch, ...]
    leaves: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return sum(branch.end - branch.start for branch in self.branches)

    def pieces(self, branch: int | None, end: int) -> tuple[tuple[int, int], ...]:
        """(branch, number of its first tokens) that make up positions 0..end-1 of what ends in `branch`, in order."""
        found: list[tuple[int, int]] = []
        while branch is not None and end > 0:
            start = self.branches[branch].start
            if end > start:
                found.append((branch, end - start))
            branch, end = self.branches[branch].parent, min(start, end)
        return tuple(found[::-1])

    def above(self, branch: int) -> tuple[tuple[int, int], ...]:
        """The pieces in front of a branch."""
        return self.pieces(self.branches[branch].parent, self.branches[branch].start)


def tree_of(sequences: Sequence[np.ndarray]) -> Tree:
    """The tree of `sequences`, token ids of at least one token each. Its order does not depend on that of the sequences."""
    keys = [np.asarray(tokens, ">u4").tobytes() for tokens in sequences]
    order = sorted(range(len(sequences)), key=keys.__getitem__)
    common = [common_prefix(sequences[a], sequences[b]) for a, b in pairwise(order)]
    branches: list[Branch] = []
    leaves = [0] * len(sequences)
    # (first place in `order`, last + 1, parent, tokens shared with it)
    groups: list[tuple[int, int, int | None, int]] = [(low, high, None, 0) for low, high in _runs(common, len(order))[::-1]]
    while groups:
        low, high, parent, start = groups.pop()
        trunk = max(range(low, high), key=lambda place: len(sequences[order[place]]))
        number = len(branches)
        branches.append(Branch(order[trunk], parent, start, len(sequences[order[trunk]])))
        leaves[order[trunk]] = number
        forks = _forks(low, high, trunk, common)
        for low_of_fork, high_of_fork, shared in sorted(forks, key=lambda fork: fork[2]):
            inside = [i for i in range(low_of_fork, high_of_fork) if len(sequences[order[i]]) == shared]
            for place in inside:  # a sequence that the trunk begins with
                leaves[order[place]] = number
            first = low_of_fork + len(inside)  # it is the first of its group
            if first < high_of_fork:
                groups.append((first, high_of_fork, number, shared) if shared >= MIN_SHARED else (first, high_of_fork, None, 0))
    return Tree(tuple(branches), tuple(leaves))


def _forks(low: int, high: int, trunk: int, common: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first, last + 1, tokens in common with the trunk) of the groups that leave the trunk at the same place by the same token."""
    forks: list[tuple[int, int, int]] = []
    for places in (range(trunk + 1, high), range(trunk - 1, low - 1, -1)):
        step, shared, begun = places.step, -1, trunk
        for place in places:
            beside = common[min(place, place - step)]  # tokens in common with the neighbour on the trunk's side
            if shared < 0 or beside <= shared:  # else it shares more with its neighbour than with the trunk
                if shared >= 0:
                    forks.append((*_span(begun, place, step), shared))
                shared, begun = beside if shared < 0 else min(shared, beside), place
        if shared >= 0:
            forks.append((*_span(begun, places[-1] + step, step), shared))
    return forks


def _span(begun: int, end: int, step: int) -> tuple[int, int]:
    return (begun, end) if step > 0 else (end + 1, begun + 1)


def _runs(common: Sequence[int], num: int) -> list[tuple[int, int]]:
    """The runs of neighbours that have anything in common."""
    starts = [0, *(place for place in range(1, num) if not common[place - 1])] if num else []
    return list(pairwise([*starts, num]))


def common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    """How many tokens the two have in common from the start."""
    num = min(len(first), len(second))
    differs = first[:num] != second[:num]
    return int(differs.argmax()) if differs.any() else num


def passes_of(tree: Tree, num_logits: Sequence[int], most_tokens: int, most_logits: int) -> list[list[int]]:
    """Branches in the order of the tree, cut into forward passes of at most so many tokens and logits, or of one branch."""
    passes: list[list[int]] = []
    tokens = logits = 0
    for number, branch in enumerate(tree.branches):
        size = branch.end - branch.start
        if not passes or tokens + size > most_tokens or logits + num_logits[number] > most_logits:
            passes.append([])
            tokens = logits = 0
        passes[-1].append(number)
        tokens, logits = tokens + size, logits + num_logits[number]
    return passes
