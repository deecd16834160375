"""Chunks do not depend on the number of workers."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import ChunkingParams
from tasks.chunk import parallel
from tasks.chunk.chunker import Chunker
from tasks.chunk.parallel import ChunkPool


@pytest.fixture(scope="module")
def texts() -> list[str]:
    prose = [f"# Part {i}\n\n" + f"Sentence {i} says nothing. It is e.g. short! " * (7 * i % 40) for i in range(30)]
    return [*prose, "", "  ", Path(parallel.__file__).read_text(), "日本語です。次の文。" * 60]


@pytest.mark.parametrize("strategy", ["semantic", "overlap"])
def test_two_workers_give_what_one_gives_in_order(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_BATCH_CHARS", 3000)
    params = ChunkingParams.model_validate({"max_tokens": 48, "strategy": strategy, "segmenter": "fast"})
    expected = [Chunker(tokenizer, params).chunk(text) for text in texts]
    for num_workers in (1, 2):
        with ChunkPool(tokenizer, params, num_workers) as pool:
            assert list(pool.chunk_many(texts)) == expected
            if num_workers == 2:
                formats = ["plain"] * len(texts)
                plain = [Chunker(tokenizer, params).chunk(text, "plain") for text in texts]
                assert list(pool.chunk_many(iter(texts), formats)) == plain


def test_texts_are_taken_only_as_they_are_needed(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_BATCH_CHARS", 100)
    taken = []

    def endless():  # type: ignore[no-untyped-def]
        while True:
            taken.append(len(taken))
            yield "A sentence of some length. " * 4

    with ChunkPool(tokenizer, ChunkingParams(max_tokens=32, segmenter="fast"), 2) as pool:
        results = pool.chunk_many(endless())
        for _ in range(5):
            assert next(results)
        assert len(taken) < 5 + 2 * 2 * 2
        results.close()


def test_a_workers_error_reaches_the_caller(tokenizer: PreTrainedTokenizerFast) -> None:
    params = ChunkingParams(max_tokens=32, segmenter="fast")
    with ChunkPool(tokenizer, params, 2) as pool, pytest.raises(ValueError, match="unknown format 'pdf'"):
        list(pool.chunk_many(["text"], ["pdf"]))
