"""Promises of the chunker on every text: the budget holds, nothing is lost, ids decode to the chunk, results repeat."""

import random
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import ChunkingParams
from data_schemas.tables import TEXT_FORMATS
from tasks.chunk import cuts
from tasks.chunk.chunker import Chunk, Chunker
from tasks.chunk.sentences import FastSegmenter
from tasks.tokens import encoding
from tests.conftest import TEXT

FRAGMENTS = [
    "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", " ", "    ", "\t", "\u00a0", "\u2028", "\x0b\x0c", "\n   \n\t\n",
    "# Title\n", "\n## Deeper ##\n\n", "Title\n=====\n", "\n****\nPart\n****\n", "```\n# not a title\n```\n", "~~~\n", "---\n",
    "One sentence. ", "Is it? Yes! ", "Dr. No, e.g. 3.14... ", "日本語です。次の文。", "الجملة؟ نعم. ",
    "👩‍👩‍👧‍👦", "🇨🇭", "e\u0301\u0323", "𝄞", "\ufeff", "\u200d", "</s>", "<s>", "def f(x):\n    return x\n", "x" * 70, "word " * 30,
    "a-b_c(d)[e]{f}", "|a|b|\n|-|-|\n", "\x7f\x01",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=12)), max_size=40).map("".join)
MANY = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def chunker(tokenizer: Any, **options: Any) -> Chunker:
    return Chunker(tokenizer, ChunkingParams(**{"max_tokens": 16, **options}))


def pieces(text: str, chunks: list[Chunk]) -> list[str]:
    return [text[c.char_start : c.char_end] for c in chunks]


@pytest.fixture(scope="module")
def cutters(tokenizer: PreTrainedTokenizerFast) -> dict[tuple[str, int], Chunker]:
    sizes = {"fixed": (16, 64), "semantic": (16, 40, 200)}
    return {(s, n): chunker(tokenizer, strategy=s, max_tokens=n) for s, ns in sizes.items() for n in ns}


@MANY
@given(text=TEXTS, which=st.sampled_from([("fixed", 16), ("fixed", 64), ("semantic", 16), ("semantic", 40), ("semantic", 200)]))
@example(text="👩‍👩‍👧‍👦" * 20, which=("fixed", 16))
@example(text="", which=("semantic", 16))
@example(text=" \n" * 100, which=("semantic", 16))
def test_chunks_tile_the_text_within_the_budget(
    cutters: dict[tuple[str, int], Chunker], tokenizer: PreTrainedTokenizerFast, text: str, which: tuple[str, int]
) -> None:
    chunks = cutters[which].chunk(text)
    assert [c.char_start for c in chunks] == [0, *(c.char_end for c in chunks[:-1])][: len(chunks)]
    assert "".join(pieces(text, chunks)) == text
    for chunk in chunks:
        assert 1 <= chunk.num_tokens == len(chunk.token_ids) <= which[1]
        assert tokenizer.decode(chunk.token_ids, skip_special_tokens=True) == text[chunk.char_start : chunk.char_end]
    assert cutters[which].chunk(text) == chunks
    if sum(c.num_tokens for c in chunks) <= which[1]:
        assert len(chunks) <= 1


@MANY
@given(text=TEXTS, fraction=st.floats(0, 0.99), size=st.sampled_from([16, 50]))
def test_overlapping_windows_lose_nothing_and_end(
    tokenizer: PreTrainedTokenizerFast, text: str, fraction: float, size: int
) -> None:
    params = ChunkingParams.model_construct(strategy="overlap", max_tokens=size, overlap_fraction=fraction)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cutter = Chunker(tokenizer, params)
    assert bool(caught) == (not 0.1 <= fraction <= 0.3)
    chunks = cutter.chunk(text)
    for before, after in pairwise(chunks):
        assert before.char_start < after.char_start <= before.char_end
    assert not text or (chunks[0].char_start, chunks[-1].char_end) == (0, len(text))
    for chunk in chunks:
        assert chunk.num_tokens <= size
        assert tokenizer.decode(chunk.token_ids) == text[chunk.char_start : chunk.char_end]


def test_overlap_is_the_share_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    chunks = chunker(tokenizer, strategy="overlap", max_tokens=100, overlap_fraction=0.2).chunk("abcdefgh " * 200)
    assert len(chunks) > 5
    for before, after in pairwise(chunks):
        assert after.token_ids[:20] == before.token_ids[-20:]
    assert {c.num_tokens for c in chunks[:-1]} == {100}


@MANY
@given(texts=st.lists(TEXTS, max_size=5))
def test_a_text_gives_the_same_chunks_alone_and_among_others(cutters: dict[tuple[str, int], Chunker], texts: list[str]) -> None:
    cutter = cutters["semantic", 40]
    assert [cutter.cut(e) for e in cutter.encode(texts)] == [cutter.chunk(t) for t in texts]


def test_ids_of_a_document_that_fits_are_the_tokenizers_own(tokenizer: PreTrainedTokenizerFast) -> None:
    (chunk,) = chunker(tokenizer, max_tokens=4096).chunk(TEXT * 3)
    assert chunk.token_ids == tokenizer(TEXT * 3, add_special_tokens=False).input_ids


def test_a_literal_special_token_is_plain_text(tokenizer: PreTrainedTokenizerFast) -> None:
    (chunk,) = chunker(tokenizer).chunk("a</s>b")
    assert tokenizer.eos_token_id not in chunk.token_ids
    assert tokenizer.decode(chunk.token_ids) == "a</s>b"
    assert tokenizer("</s>", add_special_tokens=False).input_ids == [tokenizer.eos_token_id]  # the caller's is unchanged


def test_truncation_set_on_the_callers_tokenizer_does_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(5)
    backend.enable_padding(length=99)
    assert chunker(backend).chunk(TEXT) == chunker(tokenizer).chunk(TEXT)


def test_a_missing_budget_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="max_tokens is not set"):
        chunker(tokenizer, max_tokens=None)


# -- semantic: where it cuts


def words(number: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(number))


def test_headings_go_before_paragraphs_and_paragraphs_before_sentences(tokenizer: PreTrainedTokenizerFast) -> None:
    size = len(chunker(tokenizer, max_tokens=9999).chunk(words(10))[0].token_ids)
    section = f"# One\n\n{words(10, 1)}.\n\n{words(10, 2)}.\n\n"
    both = [section, section.replace("One", "Two")]
    assert pieces("".join(both), chunker(tokenizer, min_fill=0, max_tokens=int(3.5 * size)).chunk("".join(both))) == both
    paragraphs = [f"{words(10, 3)}. {words(10, 4)}.\n\n", f"{words(10, 5)}. {words(10, 6)}."]
    assert (
        pieces("".join(paragraphs), chunker(tokenizer, min_fill=0, max_tokens=int(3.5 * size)).chunk("".join(paragraphs)))
        == paragraphs
    )
    sentence_list = [f"{words(10, 7)}.", f" {words(10, 8)}.", f" {words(10, 9)}."]
    text = "".join(sentence_list)
    assert pieces(text, chunker(tokenizer, min_fill=0, max_tokens=int(1.5 * size)).chunk(text)) == sentence_list
    assert pieces(text, chunker(tokenizer, min_fill=0, max_tokens=int(2.5 * size)).chunk(text)) == [
        "".join(sentence_list[:2]),
        sentence_list[2],
    ]


def test_a_higher_section_goes_before_a_lower_one(tokenizer: PreTrainedTokenizerFast) -> None:
    parts = [
        f"# A\n\n{words(9)}\n\n## A.1\n\n{words(9)}\n\n",
        f"# B\n\n{words(9)}\n\n",
        f"## B.1\n\n{words(9)}\n\n## B.2\n\n{words(9)}\n",
    ]
    size = chunker(tokenizer, max_tokens=9999).chunk("".join(parts))[0].num_tokens
    first, second, *_ = pieces("".join(parts), chunker(tokenizer, min_fill=0, max_tokens=int(size * 0.7)).chunk("".join(parts)))
    assert first == parts[0]  # and not the later, weaker boundary in front of B.1
    assert second == parts[1] + parts[2]


def test_a_token_boundary_only_inside_one_sentence_over_the_budget(tokenizer: PreTrainedTokenizerFast) -> None:
    text = f"Short one. {words(60).capitalize()}. Short two. Short three."
    found = pieces(text, chunker(tokenizer, max_tokens=64).chunk(text))
    assert found[0] == "Short one."
    assert found[-1].endswith("Short two. Short three.")
    assert len(found) > 3


def test_a_heading_stays_with_its_first_paragraph(tokenizer: PreTrainedTokenizerFast) -> None:
    text = f"# Title\n\n## Deeper\n\n{words(12)}. {words(12)}. {words(12)}."
    found = pieces(text, chunker(tokenizer, max_tokens=100).chunk(text))
    assert len(found) > 1
    assert found[0].startswith("# Title\n\n## Deeper\n\n" + words(12))


def test_a_line_starts_with_its_indentation(tokenizer: PreTrainedTokenizerFast) -> None:
    methods = [f"    def method_{i}(self):\n        return {words(4, i)!r}\n\n" for i in range(6)]
    for chunk in chunker(tokenizer, min_fill=0, max_tokens=120).chunk("".join(methods))[1:]:
        assert "".join(methods)[chunk.char_start :].lstrip("\n").startswith("    def")


def test_heading_path_is_where_the_chunk_starts(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "\n\n".join(["before", "# A", words(20), "## A.1 ##", words(20, 1), "# B", words(20, 2), "### B.x", words(20, 3)])
    for strategy in ("semantic", "fixed"):
        chunks = chunker(tokenizer, strategy=strategy, max_tokens=50).chunk(text)
        for chunk in chunks:
            start = chunk.char_start + len(chunk_text := text[chunk.char_start : chunk.char_end]) - len(chunk_text.lstrip())
            expected: tuple[str, ...] = ()
            for mark, path in (("# A", ("A",)), ("## A.1", ("A", "A.1")), ("# B", ("B",)), ("### B.x", ("B", "B.x"))):
                if start >= text.index(f"\n{mark}") + 1:
                    expected = path
            assert chunk.heading_path == expected
        assert {c.heading_path for c in chunks} >= {("A",), ("A", "A.1"), ("B",)}


# -- every strategy and format

CODE = ["class A:\n", "    def f(self):\n", "        return 1\n", "@deco\n", "# note\n", "'''\n", '"""doc\n', "fn main() {\n", "}\n", "/* ",
        "*/\n", "  x = 1;\n", "CHAPTER IV.\n", "1.2 Title\n", "LOUD LINE\n", ".. note::\n", "- item\n", "1. First\n"]  # fmt: skip
MIXED = st.lists(st.one_of(st.sampled_from(FRAGMENTS + CODE), st.text(max_size=8)), max_size=50).map("".join)


@pytest.fixture(scope="module")
def by_strategy(tokenizer: PreTrainedTokenizerFast) -> dict[tuple[str, str], Chunker]:
    kinds = [("fixed", "fast"), ("overlap", "fast"), ("semantic", "fast"), ("semantic", "spacy")]
    return {(strategy, kind): chunker(tokenizer, strategy=strategy, segmenter=kind, max_tokens=24) for strategy, kind in kinds}


@MANY
@given(text=MIXED, text_format=st.sampled_from(["auto", *TEXT_FORMATS]))
def test_every_strategy_and_format_keeps_every_promise(
    by_strategy: dict[tuple[str, str], Chunker], tokenizer: PreTrainedTokenizerFast, text: str, text_format: str
) -> None:
    for (strategy, _), cutter in by_strategy.items():
        chunks = cutter.chunk(text, text_format)
        covered = 0
        for chunk in chunks:
            assert chunk.char_start <= covered < chunk.char_end
            assert strategy == "overlap" or chunk.char_start == covered
            covered = chunk.char_end
            assert 1 <= chunk.num_tokens == len(chunk.token_ids) <= 24
            assert tokenizer.decode(chunk.token_ids) == text[chunk.char_start : chunk.char_end]
        assert covered == len(text)
        assert cutter.chunk(text, text_format) == chunks


def test_an_unknown_format_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="unknown format 'html'"):
        chunker(tokenizer).chunk("text", "html")


class Recording:
    """A segmenter that notes how much it is asked to look at."""

    def __init__(self) -> None:
        self.inner = FastSegmenter("en")
        self.num_chars = 0

    def starts(self, text: str, low: int = 0, high: int | None = None) -> list[int]:
        self.num_chars += (len(text) if high is None else high) - low
        return self.inner.starts(text, low, high)


@pytest.mark.parametrize("unit", ["A short one. Another. ", "word " * 30 + "end. ", "word ", "x", " " * 50 + "y"])
def test_sentence_finding_is_linear_in_the_text(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    cutter = chunker(tokenizer, max_tokens=64, segmenter="fast")
    looked_at = []
    for num_chars in (4_000, 32_000):
        recording = Recording()
        monkeypatch.setattr(cutter, "_segmenter", recording)
        cutter.chunk((unit * num_chars)[:num_chars])
        looked_at.append(recording.num_chars)
    assert looked_at[1] <= 10 * looked_at[0]
    assert looked_at[1] <= 3 * 32_000


def test_a_cut_is_where_segmenting_the_whole_paragraph_would_put_it(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(f"{words(1 + 7 * i % 23, i).capitalize()}, e.g. Dr. {words(1, i).title()}." for i in range(300))
    for kind in ("spacy", "fast"):
        cutter = chunker(tokenizer, max_tokens=200, segmenter=kind)
        near = cutter.chunk(text)
        monkeypatch.setattr(cuts, "_LOOK_BACK_CHARS", 10**9)
        assert cutter.chunk(text) == near
        monkeypatch.undo()
        assert len(near) > 20


def test_code_is_cut_at_definitions_before_members_before_blank_lines_before_lines(tokenizer: PreTrainedTokenizerFast) -> None:
    size = chunker(tokenizer, max_tokens=9999)
    method = "    def m{}(self):\n        a = 1\n\n        return a + 2\n\n"
    text = (
        "import os\n\n\n# About A.\n@deco\nclass A:\n"
        + "".join(method.format(i) for i in range(4))
        + "\ndef f():\n"
        + "    pass\n" * 30
    )
    budget = size.chunk(text)[0].num_tokens
    found = pieces(text, chunker(tokenizer, min_fill=0, max_tokens=budget - 5).chunk(text, "python"))
    assert [piece.split("\n")[0] for piece in found] == ["import os", "def f():"]
    found = pieces(text, chunker(tokenizer, min_fill=0, max_tokens=budget // 2).chunk(text, "python"))
    assert found[0] == "import os\n\n\n"
    assert found[1].startswith("# About A.\n@deco\nclass A:\n    def m0")
    assert all(piece.startswith("    def m") for piece in found[2:-1])
    lines = "".join(f"x{i} = {i}\n" for i in range(60))
    found = pieces(lines, chunker(tokenizer, min_fill=0, max_tokens=40).chunk(lines, "code"))
    assert len(found) > 5
    assert all(piece.startswith("x") and piece.endswith("\n") for piece in found)


# -- large texts and other tokenizers


def test_segments_change_neither_text_nor_ids(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (TEXT + "    indented line\n\n\n" + "日本語。" * 9 + "\n") * 20
    whole = tokenizer(text, add_special_tokens=False).input_ids
    monkeypatch.setattr(encoding, "SEGMENT_CHARS", 128)
    monkeypatch.setattr(encoding, "_BATCH_CHARS", 500)
    (encoded,) = encoding.Encoder(tokenizer).encode([text])
    assert encoded.ids.tolist() == whole
    assert np.all(np.diff(encoded.cut_token) > 0)
    assert np.all(np.diff(encoded.cut_char) > 0)
    assert (encoded.cut_char[0], encoded.cut_char[-1]) == (0, len(text))
    chunks = chunker(tokenizer, max_tokens=100).chunk(text)
    assert "".join(pieces(text, chunks)) == text


@pytest.mark.parametrize("kind", ["metaspace", "whitespace", "normalizing"])
def test_tokenizers_that_are_not_byte_level_keep_budget_and_text(kind: str) -> None:
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "metaspace":
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
    elif kind == "whitespace":
        raw.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.train_from_iterator([TEXT] * 4, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"]))
    text = "\n\n  " + (TEXT + " ﬁne ① e\u0301 日本 \n \n") * 5 + " "
    for strategy in ("fixed", "semantic"):
        chunks = chunker(raw, strategy=strategy, max_tokens=30).chunk(text)
        assert "".join(pieces(text, chunks)) == text
        assert max(c.num_tokens for c in chunks) <= 30
        assert sum(c.num_tokens for c in chunks) == len(raw.encode(text).ids)
        assert all(c.num_tokens for c in chunks)


def test_a_normalizer_in_front_of_a_byte_level_tokenizer_keeps_budget_and_text(tokenizer: PreTrainedTokenizerFast) -> None:
    raw = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    raw.normalizer = normalizers.NFC()
    text = "e\u0301a\u0323 plain. " * 40
    chunks = chunker(raw, max_tokens=20).chunk(text)
    assert "".join(pieces(text, chunks)) == text
    assert max(c.num_tokens for c in chunks) <= 20


# -- what a user can get wrong


def test_a_pipeline_that_is_not_installed_is_one_sentence(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="spacy_pipeline 'xx_no_such' is neither an installed pipeline"):
        chunker(tokenizer, spacy_pipeline="xx_no_such")


def test_a_language_spacy_does_not_know_is_one_sentence(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"chunking\.language 'qqq'"):
        chunker(tokenizer, language="qqq").chunk("A sentence. " * 50)
