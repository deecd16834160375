"""Promises of the fillers: rows of a folder of books are nearly full, nothing is lost, and whole documents stay whole."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import ChunkingParams, PackingParams
from data_schemas.parts import Parts
from data_schemas.tables import DOCUMENTS
from tasks.chunk.chunker import Chunker
from tasks.pack.chunk_job import TOKENIZER_FILE, ChunkJob
from tasks.pack.fillers import Fillers, cut_again
from tasks.pack.packer import PackingPlan, plan_rows
from tasks.pack.sequences import SequenceReader, read_entries
from tasks.tokens.encoding import Encoder
from tasks.tokens.special_tokens import SpecialTokens

TARGET = 1024


def book(number: int, sentences: int = 900) -> str:
    rng = random.Random(number)
    parts = [f"# Book {number}\n\n"]
    for sentence in range(sentences):
        if sentence % 60 == 0:
            parts.append(f"\n\n## Chapter {sentence // 60}\n\n")
        words = " ".join(rng.choice(["rope", "bridge", "coin", "river", "lantern"]) for _ in range(rng.randint(3, 14)))
        parts.append(words.capitalize() + (".\n\n" if rng.random() < 0.2 else ". "))
    return "".join(parts)


def write_documents(folder: Path, texts: list[tuple[str, str]]) -> Parts:
    """`texts` are (split, text)."""
    folder.mkdir()
    rows = []
    for number, (split, text) in enumerate(texts):
        row: dict[str, Any] = {name: "" for name in ("source_uri", "content_hash", "licence", "work")}
        row |= {"doc_id": f"d{number}", "text": text, "source": "books", "record": 0, "num_bytes": len(text.encode())}
        rows.append(row | {"format": "markdown", "language": "en", "split": split})
    pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS), folder / "part.parquet")
    return Parts(str(folder))


def chunked(
    root: Path, tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]], max_waste: float, max_tokens: int = TARGET - 1
) -> tuple[PackingPlan, list[dict[str, Any]]]:
    """The plan of the training rows, and the rows of the chunk table."""
    root.mkdir()
    parts = Parts(str(root / "parts"))
    with parts.writing(TOKENIZER_FILE) as path:
        tokenizer.backend_tokenizer.save(str(path))
    params = ChunkingParams(max_tokens=max_tokens, segmenter="fast")
    special = SpecialTokens(None, tokenizer.eos_token_id)
    documents = write_documents(root / "documents", texts)
    ChunkJob(documents, parts, params, special, ("books",), TARGET - 1, max_waste)((0, "part.parquet"))
    entries = read_entries(parts, 1, "train")
    plan = plan_rows(entries.lengths, TARGET, PackingParams(), document_lengths=entries.document_lengths)
    with parts.reading("chunks-00000.parquet") as path:
        return plan, pq.read_table(path).to_pylist()


def test_rows_of_many_small_pieces_are_filled_too(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [("train", book(number)) for number in range(6)] + [("heldout", book(7))]
    before, _ = chunked(tmp_path / "plain", tokenizer, texts, max_waste=1, max_tokens=TARGET // 4)
    after, _ = chunked(tmp_path / "filled", tokenizer, texts, max_waste=0.01, max_tokens=TARGET // 4)
    assert before.waste > 0.02
    assert after.waste < 0.015


def test_a_folder_of_books_wastes_little_and_loses_nothing(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [("train", book(number)) for number in range(6)] + [("heldout", book(7)), ("train", "A short page. It ends here.")]
    before, plain = chunked(tmp_path / "plain", tokenizer, texts, max_waste=1)
    after, filled = chunked(tmp_path / "filled", tokenizer, texts, max_waste=0.01)
    assert before.waste > 0.02
    assert after.waste < 0.015
    assert after.num_tokens == before.num_tokens
    for rows in (plain, filled):
        for number, (_, text) in enumerate(texts):
            spans = [(row["char_start"], row["char_end"]) for row in rows if row["doc_id"] == f"d{number}"]
            assert "".join(text[start:end] for start, end in spans) == text
            assert [row["index"] for row in rows if row["doc_id"] == f"d{number}"] == list(range(len(spans)))
    for doc_id in ("d6", "d7"):  # held out, and whole
        assert [row for row in plain if row["doc_id"] == doc_id] == [row for row in filled if row["doc_id"] == doc_id]
    short = sum(row["num_tokens"] for row in filled if row["num_tokens"] < TARGET / 4)
    assert short < 2 * before.waste * before.num_tokens


def test_every_piece_of_a_document_begins_with_bos_and_only_the_last_ends_with_eos(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    special = SpecialTokens(tokenizer.bos_token_id, tokenizer.eos_token_id)
    parts, text = Parts(str(tmp_path / "parts")), "A line with </s> and <s> in it.\n" + book(1)
    with parts.writing(TOKENIZER_FILE) as path:
        tokenizer.backend_tokenizer.save(str(path))
    documents = write_documents(tmp_path / "documents", [("train", text)])
    params = ChunkingParams(max_tokens=TARGET - 2, segmenter="fast")
    ChunkJob(documents, parts, params, special, ("books",), TARGET - 2, max_waste=1)((0, "part.parquet"))
    entries = read_entries(parts, 1, "train")
    reader = SequenceReader(parts, 1, "train")
    pieces = [reader.read(reader.locate(np.array([number]))).tolist() for number in range(len(entries.lengths))]
    assert len(pieces) > 2
    assert all(len(piece) <= TARGET and piece[0] == special.bos for piece in pieces)
    assert [piece.count(special.eos) for piece in pieces] == [0] * (len(pieces) - 1) + [1]
    assert pieces[-1][-1] == special.eos
    text_ids = [i for piece in pieces for i in piece if i not in (special.bos, special.eos)]
    (encoded,) = Encoder(tokenizer).encode([text])
    assert text_ids == encoded.ids.tolist(), "literal special tokens are text"
    assert entries.document_lengths.tolist() == [sum(map(len, pieces))] * len(pieces)


def test_fillers_are_cut_where_the_document_is_and_know_their_sections(tokenizer: PreTrainedTokenizerFast) -> None:
    text = book(3)
    chunker = Chunker(tokenizer, ChunkingParams(max_tokens=TARGET, segmenter="fast"))
    (encoded,) = chunker.encode([text])
    for chunk in chunker.cut(encoded, "markdown")[:4]:
        fillers = list(cut_again(chunker, encoded, chunk, 150, "markdown", None))
        assert len(fillers) > 4
        assert [token for filler in fillers for token in filler.token_ids] == chunk.token_ids
        assert [filler.char_start for filler in fillers[1:]] == [filler.char_end for filler in fillers[:-1]]
        assert (fillers[0].char_start, fillers[-1].char_end) == (chunk.char_start, chunk.char_end)
        assert max(filler.num_tokens for filler in fillers) <= 150
        for filler in fillers:
            titles = [line[3:] for line in text[: filler.char_start].splitlines() if line.startswith("## ")]
            opening = text[filler.char_start : filler.char_end].lstrip().splitlines()[0]
            title = opening[3:] if opening.startswith("## ") else (titles[-1] if titles else None)
            assert filler.heading_path == (("Book 3", title) if title else ("Book 3",))
    assert chunker.max_tokens == TARGET


@pytest.mark.parametrize(
    ("lengths", "is_piece", "max_waste", "why"),
    [
        ([1000] * 40, [False] * 40, 0.01, "whole documents are not cut"),
        ([1021] * 40, [True] * 40, 0.01, "the rows are full enough"),
        ([960] * 40, [True] * 40, 0.10, "so many empty places are allowed"),
        ([960] * 40 + [60] * 40, [True] * 40 + [False] * 40, 0.01, "short documents fill the rows"),
        ([600] * 40, [True] * 40, 0.01, "such gaps are left to other documents"),
        ([], [], 0.01, "there is nothing"),
    ],
)
def test_no_piece_is_cut_without_need(lengths: list[int], is_piece: list[bool], max_waste: float, why: str) -> None:
    chosen, _ = Fillers(TARGET, max_waste).choose(np.array(lengths, np.int64), np.array(is_piece, bool))
    assert len(chosen) == 0, why


def test_batches_smaller_than_one_piece_are_added_up() -> None:
    fillers = Fillers(TARGET, 0.01)
    batch = np.full(5, 960, np.int64), np.ones(5, bool)
    chosen = [len(fillers.choose(*batch)[0]) for _ in range(40)]
    assert set(chosen) == {0, 1}
    assert sum(chosen) == pytest.approx(200 * (64 - 0.005 * TARGET) / TARGET, abs=1)
