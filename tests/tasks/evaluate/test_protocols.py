"""Windows of other papers' perplexities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluate.protocols import STRIDE, ProtocolText, ProtocolWindow, protocol_windows


def text(num_tokens: int, name: str = "d") -> ProtocolText:
    return ProtocolText(name, np.arange(100, 100 + num_tokens, dtype=np.int32))


def places(windows: list[ProtocolWindow]) -> list[tuple[int, int, int]]:
    """First token, last token and targets of each window."""
    return [(int(w.tokens[0]), int(w.tokens[-1]), w.num_targets) for w in windows]


@given(st.integers(257, 4000), st.integers(0, 4000), st.sampled_from([None, 7]))
def test_sliding_yarn_scores_each_token_once_with_bos_in_front_of_every_window(length: int, more: int, bos: int | None) -> None:
    windows = protocol_windows("yarn_sliding", [text(length + more)], length, bos)
    scored = np.concatenate([w.tokens[len(w.tokens) - w.num_targets :] for w in windows])
    assert scored.tolist() == list(range(100 + (bos is None), 100 + length + more))
    assert all(len(w.tokens) <= length and (bos is None or w.tokens[0] == bos) for w in windows)


@given(st.integers(2, 4000), st.integers(0, 4000), st.sampled_from([None, 7]))
def test_yarn_cuts_each_text_to_the_length_and_scores_all_of_it(length: int, more: int, bos: int | None) -> None:
    (window,) = protocol_windows("yarn", [text(length + more)], length, bos)
    assert (len(window.tokens), window.num_targets) == (length, length - 1)
    assert window.tokens[-1] == 100 + length - 1 - (bos is not None)


def test_longlora_slides_over_documents_end_to_end_and_leaves_out_the_last_window() -> None:
    windows = protocol_windows("longlora", [text(700), text(700, "e")], 512, None)
    assert [(w.doc_id, w.number) for w in windows] == [("d", 0), ("d", 1), ("d", 2)]
    assert all((len(w.tokens), w.num_targets) == (512, 511) for w in windows)
    with_bos = protocol_windows("longlora", [text(700), text(700, "e")], 512, 7)
    assert [w.tokens.tolist().count(7) for w in with_bos] == [1, 1, 1]


def test_by_hand() -> None:
    assert places(protocol_windows("yarn_sliding", [text(1100)], 512, None)) == [
        (100, 611, 511),
        (100 + STRIDE, 867, 256),
        (612, 1123, 256),
        (868, 1199, 76),
    ]
    assert places(protocol_windows("yarn", [text(1100), text(300)], 512, 7)) == [(7, 610, 511)]
    with pytest.raises(ValueError, match="at least 2"):
        protocol_windows("yarn", [text(100)], 1, None)
