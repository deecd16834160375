"""The tree of sequences against sets of beginnings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.evaluate import prefixes
from ray_jobs.evaluate.prefixes import passes_of, tree_of

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=10)


@pytest.fixture(autouse=True)
def _share_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "MIN_SHARED", 1)


def arrays(tokens: list[list[int]]) -> list[np.ndarray]:
    return [np.array(t, np.int32) for t in tokens]


@given(sequences)
def test_every_beginning_stands_once_and_every_sequence_can_be_read(tokens: list[list[int]]) -> None:
    tree = tree_of(arrays(tokens))
    assert tree.num_tokens == len({tuple(t[:n]) for t in tokens for n in range(1, len(t) + 1)})
    written = [tokens[branch.sequence][branch.start : branch.end] for branch in tree.branches]
    for index, sequence in enumerate(tokens):
        pieces = tree.pieces(tree.leaves[index], len(sequence))
        assert [token for branch, count in pieces for token in written[branch][:count]] == sequence
    for number, branch in enumerate(tree.branches):
        assert branch.parent is None or branch.parent < number
        assert sum(count for _, count in tree.above(number)) == branch.start


@given(sequences, st.randoms())
def test_the_order_of_the_sequences_changes_nothing(tokens: list[list[int]], random: object) -> None:
    shuffled = list(tokens)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def written(given: list[list[int]]) -> list[tuple[list[int], int | None]]:
        return [(given[b.sequence][b.start : b.end], b.parent) for b in tree_of(arrays(given)).branches]

    assert written(tokens) == written(shuffled)


@given(sequences, st.integers(1, 4))
def test_short_beginnings_are_written_again(tokens: list[list[int]], least: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "MIN_SHARED", least)
        tree = tree_of(arrays(tokens))
    assert all(branch.start == 0 if branch.parent is None else branch.start >= least for branch in tree.branches)
    for index, sequence in enumerate(tokens):
        assert sum(count for _, count in tree.pieces(tree.leaves[index], len(sequence))) == len(sequence)


@given(sequences, st.integers(1, 30), st.integers(1, 6))
def test_passes_hold_every_branch_once_in_order(tokens: list[list[int]], most_tokens: int, most_logits: int) -> None:
    tree = tree_of(arrays(tokens))
    passes = passes_of(tree, [2] * len(tree.branches), most_tokens, most_logits)
    assert [number for of_pass in passes for number in of_pass] == list(range(len(tree.branches)))
    for of_pass in passes:
        size = sum(tree.branches[n].end - tree.branches[n].start for n in of_pass)
        assert len(of_pass) == 1 or (size <= most_tokens and 2 * len(of_pass) <= most_logits)
