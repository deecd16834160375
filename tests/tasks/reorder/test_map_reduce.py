"""Map-reduce over texts beyond the window: it ends, keeps order and budget, and does no call twice."""

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import UserError
from tasks.reorder.map_reduce import SEPARATOR, FolderCache, map_reduce, split
from tests.waiting import HANGS_AFTER_S


def count_words(text: str) -> int:
    return len(text.split())


def first_word(text: str) -> str:
    return text.split()[0] if text.split() else "-"


TEXT = " ".join(f"w{i}" for i in range(100))


def test_every_piece_is_processed_and_combined_in_order_until_one_is_left() -> None:
    combined: list[list[str]] = []

    def combine(parts: Sequence[str]) -> str:
        combined.append(list(parts))
        return f"{parts[0]}..{parts[-1]}"

    result = map_reduce(TEXT, process=first_word, combine=combine, count_tokens=count_words, window_tokens=4)
    assert result.parts_per_level == (25, 7, 2, 1)
    assert combined[0] == ["w0", "w4", "w8", "w12"]
    assert combined[5] == ["w80", "w84", "w88", "w92"]
    assert combined[6][0] == "w0..w12"  # w96 was alone and went on as it was
    assert result.text == "w0..w12..w48..w60..w64..w76..w96"


def test_a_text_that_fits_is_one_call_and_an_empty_one_none() -> None:
    calls: list[str] = []
    done = map_reduce("a b", process=lambda t: calls.append(t) or "long result of it", combine=str, count_tokens=count_words,
                      window_tokens=2)  # fmt: skip
    assert (done.text, done.parts_per_level, calls) == ("long result of it", (1,), ["a b"])
    assert map_reduce("", process=first_word, combine=str, count_tokens=count_words, window_tokens=2).text == ""


texts = st.lists(st.sampled_from(["a", "bb", "\n\n", ". ", " ", "ccc\n"]), max_size=60).map("".join)
counters = st.sampled_from([len, lambda text: (len(text) + 2) // 3, lambda text: len(text.encode()) * 2])


@given(texts, st.integers(2, 20), counters)
def test_split_tiles_the_text_within_the_budget(text: str, budget: int, count: Callable[[str], int]) -> None:
    pieces = split(text, budget, count)
    assert "".join(pieces) == text
    assert all(piece and count(piece) <= budget for piece in pieces)
    assert all(count(a) + count(b) > budget // 2 for a, b in itertools.pairwise(pieces))


def test_split_prefers_the_stronger_boundary() -> None:
    assert split("one two.\n\nthree four. five six", 20, len) == ["one two.\n\n", "three four. five six"]
    assert split("one two. three four five", 14, len) == ["one two. ", "three four ", "five"]
    with pytest.raises(UserError, match="character at 0 alone"):
        split("ab", 1, lambda text: 2 * len(text))


@given(texts, st.integers(1, 12), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
def test_it_ends_within_the_budget_or_refuses(text: str, window: int, mapped: int, reduced: int, threads: int) -> None:
    lock, seen = threading.Lock(), []

    def process(piece: str) -> str:
        with lock:
            seen.append(len(piece))
        return piece[:mapped] or "-"

    def combine(parts: Sequence[str]) -> str:
        with lock:
            seen.append(len(SEPARATOR.join(parts)))
        assert len(parts) > 1
        return "".join(parts)[:reduced]

    try:
        result = map_reduce(text, process=process, combine=combine, count_tokens=len, window_tokens=window, num_threads=threads)
    except UserError as refusal:
        assert re.search("never end|above the window", str(refusal))  # noqa: PT017
        assert 2 * min(mapped, window) + len(SEPARATOR) > window or 2 * min(reduced, window) + len(SEPARATOR) > window
    else:
        levels = result.parts_per_level
        assert all(later < earlier for earlier, later in itertools.pairwise(levels))
        assert levels[-1] == min(1, len(text))
    assert all(size <= window for size in seen)


def test_a_combiner_that_does_not_shorten_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"No two of \d+ neighbouring parts fit a window of 10 tokens together"):
        map_reduce(TEXT, process=lambda t: t, combine=" ".join, count_tokens=count_words, window_tokens=10)
    with pytest.raises(UserError, match="Part 1 of 2 has 12 tokens, above the window of 8"):
        map_reduce(TEXT, process=first_word, combine=lambda p: "x " * 12, count_tokens=count_words, window_tokens=8)
    with pytest.raises(UserError, match="Piece 1 of 1 has 100 tokens"):
        map_reduce(TEXT, process=str, combine=" ".join, count_tokens=count_words, window_tokens=9, chunk=lambda t: [t])


def test_threads_work_at_once_and_keep_the_order() -> None:
    meeting = threading.Barrier(3, timeout=HANGS_AFTER_S)  # three calls must be there together, or this breaks

    def process(piece: str) -> str:
        meeting.wait()
        return first_word(piece)

    given_ = {"count_tokens": count_words, "window_tokens": 40, "chunk": lambda t: [t[i : i + 30] for i in range(0, 90, 30)]}
    result = map_reduce(TEXT, process=process, combine=" ".join, num_threads=3, **given_)
    assert result.text == " ".join(first_word(TEXT[i : i + 30]) for i in range(0, 90, 30))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_after_an_interruption_no_finished_call_is_repeated(tmp_path: Path, num_threads: int) -> None:
    calls: list[str] = []
    broken = True

    def process(piece: str) -> str:
        if broken and piece.startswith("w60"):
            raise ConnectionError("the model went away")
        calls.append(piece)
        return first_word(piece)

    def run() -> str:
        return map_reduce(
            TEXT, process=process, combine=lambda parts: parts[-1], count_tokens=count_words, window_tokens=5,
            num_threads=num_threads, cache=FolderCache(tmp_path / "cache"),
        ).text  # fmt: skip

    with pytest.raises(ConnectionError):
        run()
    assert 0 < len(calls) < 20
    broken = False
    assert run() == "w95"
    assert len(calls) == len(set(calls)) == 20
    calls.clear()
    assert run() == "w95"
    assert calls == []


def test_equal_pieces_at_once_share_a_cache_without_harm(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path)
    result = map_reduce("é " * 64, process=str.strip, combine=lambda p: "é", count_tokens=count_words, window_tokens=2,
                        num_threads=4, cache=cache, chunk=lambda t: ["é "] * 64)  # fmt: skip
    assert result.text == "é"
    assert all(not file.name.startswith(".") for file in tmp_path.iterdir())
