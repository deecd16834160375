"""Held-out documents, context lengths and fixed targets."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from data_schemas.documents import part_name
from data_schemas.errors import UserError
from data_schemas.params import ChunkingParams
from tasks.chunk.chunker import Chunker
from tasks.evaluate import heldout
from tasks.evaluate.heldout import HeldOutDocument, read_heldout, select_by_work, select_documents, tokenize
from tasks.evaluate.perplexity import TargetDocument, evaluation_lengths, perplexity, position_ranges, target_documents
from tasks.tokens.special_tokens import special_tokens
from tests.tasks.tokens.made_tokenizers import KINDS


def document(doc_id: str, num_tokens: int) -> HeldOutDocument:
    return HeldOutDocument(doc_id, np.arange(num_tokens, dtype=np.int32), np.zeros(num_tokens, bool), 0)


@pytest.mark.parametrize(
    ("window", "target", "expected"),
    [
        (512, 2048, (256, 512, 1024, 2048)),
        (512, 3000, (256, 512, 1024, 2048, 3000)),
        (200, 800, (200, 400, 800)),  # 100 leaves no context in front of 128 targets
    ],
)
def test_default_lengths_double_from_half_the_window_to_the_target(window: int, target: int, expected: tuple[int, ...]) -> None:
    assert evaluation_lengths(None, base_window=window, target_length=target, target_tokens=128) == expected


@given(st.integers(1, 10_000), st.integers(32, 100_000), st.integers(8, 31))
def test_target_is_always_measured(window: int, target: int, target_tokens: int) -> None:
    lengths = evaluation_lengths((), base_window=window, target_length=target, target_tokens=target_tokens)
    assert lengths[-1] == target
    assert list(lengths) == sorted(set(lengths))
    assert lengths[0] > target_tokens


def test_requested_lengths_are_sorted_and_refused_where_no_context_is_left() -> None:
    assert evaluation_lengths((64, 32, 64), base_window=512, target_length=64, target_tokens=8) == (32, 64)
    with pytest.raises(UserError, match=r"evaluation\.lengths holds 128"):
        evaluation_lengths((128, 256), base_window=512, target_length=2048, target_tokens=128)
    with pytest.raises(UserError, match="target_tokens is 128"):
        evaluation_lengths(None, base_window=32, target_length=64, target_tokens=128)


@given(st.integers(20, 300), st.integers(1, 15), st.data())
def test_targets_are_the_same_tokens_at_every_length(num_tokens: int, num_targets: int, data: st.DataObject) -> None:
    target = TargetDocument.of(document("d", num_tokens), max_length=num_tokens, num_targets=num_targets)
    length = data.draw(st.integers(num_targets + 1, num_tokens))
    window = target.window(length)
    assert len(window) == length
    assert window[-num_targets:].tolist() == list(range(target.target_start, num_tokens))
    assert np.all(np.diff(window) == 1), "the context stands directly to the left of the targets"


def test_a_window_longer_than_the_document_is_refused() -> None:
    with pytest.raises(ValueError, match="must lie in"):
        TargetDocument.of(document("d", 10), max_length=10, num_targets=2).window(11)


def test_of_a_long_document_only_its_two_ends_are_kept() -> None:
    kept = TargetDocument.of(document("d", 100), max_length=10, num_targets=3)
    assert kept.head.tolist() == list(range(10))
    assert kept.tail.tolist() == list(range(90, 100))
    assert (kept.num_tokens, kept.target_start) == (100, 97)


@given(st.integers(2, 5000))
def test_ranges_of_positions_hold_each_predicted_position_once_and_double(length: int) -> None:
    ranges = position_ranges(length)
    assert [p for start, end in ranges for p in range(start, end)] == list(range(1, length))
    assert all(end == 2 * start for start, end in ranges[:-1])


def test_only_documents_that_fill_the_longest_window_are_scored() -> None:
    documents = [document("a", 100), document("b", 99), document("c", 150), document("d", 300)]
    chosen = target_documents(documents, max_length=100, num_documents=2, num_targets=8)
    assert [d.doc_id for d in chosen] == ["a", "c"]
    with pytest.raises(UserError, match=r"Only 1 held-out document\(s\) have at least 200 tokens"):
        target_documents(documents, max_length=200, num_documents=2, num_targets=8)


def test_perplexity_weighs_tokens() -> None:
    assert perplexity(np.array([0.0, 3.0]), np.array([1, 2])) == pytest.approx(np.e)


def write_documents(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    table = {"doc_id": [], "text": [], "split": [], "num_bytes": []}  # type: ignore[var-annotated]
    for doc_id, text, split in rows:
        for name, value in zip(table, (doc_id, text, split, len(text.encode())), strict=True):
            table[name].append(value)
    folder.mkdir()
    half = len(rows) // 2
    for number, part in enumerate((pa.table(table)[:half], pa.table(table)[half:])):
        pq.write_table(part, folder / part_name(number, 2), row_group_size=4)
    return folder


def test_heldout_order_is_independent_of_the_file_and_leaves_training_documents_out(tmp_path: Path) -> None:
    rows = [(f"doc{i}", "x" * (10 + i), "train" if i % 3 == 0 else "heldout") for i in range(30)]
    forward = list(read_heldout(write_documents(tmp_path / "a", rows), min_bytes=15))
    backward = list(read_heldout(write_documents(tmp_path / "b", rows[::-1]), min_bytes=15))
    assert forward == backward
    assert {doc_id for doc_id, _ in forward} == {d for d, text, split in rows if split == "heldout" and len(text) >= 15}
    assert [d for d, _ in forward] != sorted(d for d, _ in forward), "the order must not follow the names"


def test_tokens_carry_bos_only_where_the_tokenizer_adds_it(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = tokenize("d", "One line.\nTwo lines.", tokenizer)
    assert plain.num_leading == 0
    with_bos = PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str()),
        bos_token="<s>",
        eos_token="</s>",
    )
    with_bos.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    begun = tokenize("d", "One line.\nTwo lines.", with_bos)
    assert begun.num_leading == 1
    assert begun.token_ids.tolist() == [0, *plain.token_ids.tolist()]
    assert len(begun.is_boundary) == len(begun.token_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_with_special_tokens_has_the_ids_of_training(kind: str) -> None:
    tokenizer = KINDS[kind]()
    text = "A rope.\n</s>\n<s> and <|endoftext|>\nAnother line of it.\n"
    chunker = Chunker(tokenizer, ChunkingParams(max_tokens=4096, segmenter="fast"))
    (chunk,) = chunker.chunk(text)
    document = tokenize("d", text, tokenizer)
    assert document.token_ids.tolist() == special_tokens(tokenizer).around(chunk.token_ids, is_last=False).tolist()
    target = TargetDocument.of(document, max_length=20, num_targets=8)
    bos = [tokenizer.bos_token_id] if kind != "bytes" else []
    assert target.window(20).tolist() == [*bos, *chunk.token_ids[-20 + len(bos) :]]


@given(st.integers(20, 300), st.integers(1, 15), st.data())
def test_a_window_begins_with_bos_wherever_it_starts(num_tokens: int, num_targets: int, data: st.DataObject) -> None:
    ids = np.concatenate([[999], np.arange(1, num_tokens)]).astype(np.int32)
    max_length = data.draw(st.integers(num_targets + 2, num_tokens))
    begun = HeldOutDocument("d", ids, np.zeros(num_tokens, bool), 1)
    target = TargetDocument.of(begun, max_length=max_length, num_targets=num_targets)
    assert target.head.tolist() == ids[:max_length].tolist()
    for length in {num_targets + 2, max_length}:
        window = target.window(length).tolist()
        assert len(window) == length
        assert window[0] == 999
        assert window[1:] == list(range(num_tokens - length + 1, num_tokens))
    assert target.target_start == num_tokens - num_targets
    with pytest.raises(ValueError, match="must lie in"):
        target.window(num_targets + 1)  # BOS alone is no context


def test_boundaries_stand_after_lines_and_sentences(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "It is 3.5 m. Deep!\nA line"
    tokenized = tokenize("d", text, tokenizer)
    ends = np.cumsum([len(tokenizer.decode([i])) for i in tokenized.token_ids])
    assert {text[:end] for end in ends[tokenized.is_boundary]} <= {"It is 3.5 m.", "It is 3.5 m. Deep!", "It is 3.5 m. Deep!\n"}
    assert "It is 3.5 m." in {text[:end] for end in ends[tokenized.is_boundary]}


def test_reading_stops_when_there_is_enough(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = iter([(f"d{i}", "word " * 100) for i in range(10)])
    chosen = select_documents(texts, tokenizer, min_tokens=50, num_documents=2, haystack_tokens=1)
    assert [d.doc_id for d in chosen] == ["d0", "d1"]
    assert next(texts)[0] in ("d2", "d3"), "the rest is left untokenized"


def by_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lengths: dict[str, list[int]], num_documents: int
) -> tuple[list[str], int]:
    """The work of each chosen document of at least 10 words, and how many were read. `lengths`: words of the documents of each work."""
    rows = [
        {"doc_id": f"{work}{number}", "text": "word " * words, "num_bytes": 5 * words, "split": "train"}
        for work, of_work in lengths.items()
        for number, words in enumerate(of_work)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / part_name(0, 1))
    read: list[str] = []

    def words_of(doc_id: str, text: str, tokenizer: object) -> HeldOutDocument:
        read.append(doc_id)
        return document(doc_id, len(text.split()))

    monkeypatch.setattr(heldout, "tokenize", words_of)
    works = {row["doc_id"]: row["doc_id"].rstrip("0123456789") for row in rows}
    chosen = select_by_work(folder, works, None, min_tokens=10, num_documents=num_documents, split="train")
    assert all(len(one.token_ids) >= 10 for one in chosen)
    return [works[one.doc_id] for one in chosen], len(read)


def test_each_work_gives_a_long_document_before_any_gives_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {"a": [20] * 9, "b": [5] * 7 + [20] * 2, "c": [20], "d": [5], "e": [20] * 3}
    chosen, _ = by_work(tmp_path, monkeypatch, lengths, 9)
    assert set(chosen[:4]) == set("abce"), "also the work that has short ones"
    assert sorted(chosen[4:7]) == ["a", "b", "e"]
    assert sorted(chosen[7:]) == ["a", "e"]


def test_where_every_document_is_a_work_the_order_is_that_of_all_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{letter}{other}" for letter in "abcdef" for other in "uvwxyz"]
    chosen, num_read = by_work(tmp_path, monkeypatch, {name: [20] for name in names}, 7)
    assert chosen == [doc_id[:-1] for doc_id, _ in read_heldout(tmp_path, 10, split="train")][:7]
    assert num_read == 7


def test_a_large_work_without_long_documents_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {"short": [5] * 200, "a": [20] * 30, "b": [20] * 30}
    assert by_work(tmp_path, monkeypatch, lengths, 20)[1] == 36
    assert by_work(tmp_path, monkeypatch, lengths, 70)[1] == 260, "all, where there is not enough"
    rare = {"rare": [5] * 40 + [20], "a": [20] * 3}
    assert sorted(by_work(tmp_path, monkeypatch, rare, 4)[0]) == ["a", "a", "a", "rare"], (
        "read where there is not enough without it"
    )


def test_empty_document_has_no_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenize("d", "", tokenizer).token_ids) == 0
