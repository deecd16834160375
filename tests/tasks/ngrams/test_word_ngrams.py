import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ngrams import word_ngrams
from tasks.ngrams.word_ngrams import distinct, distinct_ngrams, ngram_blocks, ngram_blocks_of_sizes, ngram_hashes, num_words_of

WORDS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "Ab", "x1", "zebra"]), max_size=60)
SEPARATORS = st.sampled_from([" ", "\n", ", ", "_", " -- ", "\t\t"])


def reference_ngrams(text: str, num_words: int) -> list[tuple[str, ...]]:
    words = [w.lower() for w in re.findall(r"[^\W_]+", text)]
    if len(words) < num_words:
        return [tuple(words)] if words else []
    return [tuple(words[i : i + num_words]) for i in range(len(words) - num_words + 1)]


@given(words=WORDS, separator=SEPARATORS, num_words=st.integers(1, 7))
def test_hashes_are_equal_exactly_where_words_are(words: list[str], separator: str, num_words: int) -> None:
    text = separator.join(words)
    expected = reference_ngrams(text, num_words)
    hashes = ngram_hashes(text, num_words).tolist()
    assert len(hashes) == len(expected)
    assert len(set(zip(hashes, expected, strict=True))) == len(set(hashes)) == len(set(expected))


@given(words=WORDS, num_words=st.integers(1, 4))
def test_spans_hold_the_words(words: list[str], num_words: int) -> None:
    text = " , ".join(["é", *words, "ende"])
    spans = [(s, e) for b in ngram_blocks(text, num_words) for s, e in zip(b.starts, b.ends, strict=True)]
    found = [tuple(re.findall(r"\w+", text[start:end].lower())) for start, end in spans]
    assert found == reference_ngrams(text, num_words)
    assert all(text[s] not in " ," and text[e - 1] not in " ," for s, e in spans)


@given(words=WORDS, num_words=st.integers(1, 9), block=st.integers(8, 40))
def test_blocks_do_not_show(words: list[str], num_words: int, block: int) -> None:
    text = " \u00ad ".join(words)  # a soft hyphen, which is skipped, moves the places
    with pytest.MonkeyPatch.context() as patch:
        whole = list(ngram_blocks(text, num_words))
        patch.setattr(word_ngrams, "_BLOCK_CHARACTERS", block)
        parts = list(ngram_blocks(text, num_words))
    for name in ("hashes", "starts", "ends"):
        values = [[x for b in blocks for x in getattr(b, name).tolist()] for blocks in (whole, parts)]
        assert values[0] == values[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Rope, the BRIDGE!", "the rope the bridge"),
        ("“Café”—naïve", unicodedata.normalize("NFD", '"cafe" NAÏVE')),
        ("hy\u00adphen ze\u200bro", "hyphen zero"),
        ("Ｆｕｌｌ width", "full Width"),
        ("foo_bar(baz)", "foo bar: baz"),
        ("Straße 🙂 ok", "straße OK"),
    ],
)
def test_case_accents_and_punctuation_do_not_count(one: str, other: str) -> None:
    assert ngram_hashes(one, 2).tolist() == ngram_hashes(other, 2).tolist()


def test_scripts_without_spaces() -> None:
    assert num_words_of("漢字とかな 𠀀𠀁 한국어 문장") == 5 + 2 + 2
    assert num_words_of("हिन्दी में") == 2  # vowel signs belong to the word
    assert len(ngram_hashes("漢字漢字", 2)) == 3
    assert len(distinct_ngrams("漢字漢字", 2)) == 2


def test_short_and_empty_texts() -> None:
    assert len(ngram_hashes("", 5)) == len(ngram_hashes(" \n—🙂—", 5)) == 0
    assert len(ngram_hashes("one two", 5)) == 1
    assert ngram_hashes("one two", 5) == ngram_hashes("ONE, two.", 13)  # counted as what it is: two words
    assert ngram_hashes("one two", 5)[0] not in ngram_hashes("one two three", 5)


def test_a_word_longer_than_a_block_and_lone_surrogates() -> None:
    text = "x" * 100_000 + " \ud800 end"
    assert num_words_of(text) >= 2
    assert ngram_hashes(text, 3).tolist() == ngram_hashes(text, 3).tolist()


def test_the_same_on_every_machine() -> None:
    """Sketches and indexes of different machines are compared, so a change of these values must be deliberate."""
    assert [hex(h) for h in ngram_hashes("In the beginning, 漢", 3)] == ["0xf5f128c70d15f3fa", "0xfae580cbc77d3c5e"]


@given(st.lists(st.integers(0, 20)))
def test_distinct_is_a_sorted_set(values: list[int]) -> None:
    assert distinct(np.array(values, np.uint64)).tolist() == sorted(set(values))


@given(words=WORDS, sizes=st.sets(st.integers(1, 15), min_size=1, max_size=4), block=st.integers(5, 60))
def test_several_sizes_at_once_give_the_same_as_one_after_the_other(words: list[str], sizes: set[int], block: int) -> None:
    text = " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_ngrams, "_BLOCK_CHARACTERS", block)
        together: dict[int, list[int]] = {size: [] for size in sizes}
        for blocks in ngram_blocks_of_sizes(text, sorted(sizes)):
            for size, found in blocks.items():
                together[size] += found.hashes.tolist()
        assert together == {size: ngram_hashes(text, size).tolist() for size in sizes}
