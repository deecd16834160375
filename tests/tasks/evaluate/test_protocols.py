"""Windows of other papers' perplexities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluate.protocols import STRIDE, protocol_windows


@given(st.integers(257, 4000), st.integers(0, 4000))
def test_yarn_scores_each_token_once_with_at_least_a_full_window_less_one_step_in_front(length: int, more: int) -> None:
    num_tokens = length + more
    windows = protocol_windows("yarn", num_tokens, length)
    scored = [token for w in windows for token in range(w.end - w.num_targets, w.end)]
    assert scored == list(range(1, num_tokens))
    assert all(w.end - w.start <= length for w in windows)
    assert all(w.num_targets <= STRIDE and w.end - w.num_targets - w.start >= length - STRIDE for w in windows[1:])


@given(st.integers(2, 4000), st.integers(0, 4000))
def test_longlora_scores_all_of_every_window(length: int, more: int) -> None:
    windows = protocol_windows("longlora", length + more, length)
    assert [w.start for w in windows] == list(range(0, more + 1, STRIDE))
    assert all((w.end - w.start, w.num_targets) == (length, length - 1) for w in windows)


def test_by_hand() -> None:
    yarn = protocol_windows("yarn", 1100, 512)
    assert [(w.start, w.end, w.num_targets) for w in yarn] == [
        (0, 512, 511),
        (256, 768, 256),
        (512, 1024, 256),
        (768, 1100, 76),
    ]
    assert [w.start for w in protocol_windows("longlora", 1100, 512)] == [0, 256, 512]


def test_windows_shorter_than_the_step_score_what_they_hold() -> None:
    assert [(w.start, w.end, w.num_targets) for w in protocol_windows("yarn", 600, 100)] == [
        (0, 100, 99),
        (256, 356, 99),
        (512, 600, 87),
    ]
    with pytest.raises(ValueError, match="must lie in"):
        protocol_windows("yarn", 100, 101)
