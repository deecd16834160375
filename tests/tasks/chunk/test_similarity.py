"""Cuts where the topic changes, by a small random BERT made on the spot."""

from pathlib import Path

import pytest
import torch
from transformers import BertModel, PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import ChunkingParams
from tasks.chunk.chunker import Chunker
from tasks.chunk.similarity import TopicShift
from tests.tasks.encoder_example import write_encoder

SEA = "The tide comes in. Salt dries on the rope. A gull sits on the mast. "
TAX = "Form 1040 asks 3 numbers! Box 12b is 0? Line 7 = 55,000; deduct 12%! "


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "bert", tokenizer)


def chunker(tokenizer: PreTrainedTokenizerFast, path: Path | None, max_tokens: int = 160) -> Chunker:
    params = ChunkingParams(max_tokens=max_tokens, segmenter="fast", embedding_model=str(path) if path else None)
    return Chunker(tokenizer, params)


def test_cuts_obey_the_budget_and_lie_between_sentences(tokenizer: PreTrainedTokenizerFast, encoder: Path) -> None:
    text = (SEA * 3 + TAX * 3) * 4
    chunks = chunker(tokenizer, encoder).chunk(text)
    assert "".join(text[c.char_start : c.char_end] for c in chunks) == text
    assert all(c.num_tokens <= 160 for c in chunks)
    assert all(c.num_tokens >= 80 - 40 for c in chunks[:-1])  # the last half of the budget, less a sentence
    for chunk in chunks[:-1]:
        assert text[chunk.char_end - 1] in ".!?;"
    assert chunks != chunker(tokenizer, None).chunk(text)
    assert chunks == chunker(tokenizer, encoder).chunk(text)


def test_the_least_alike_neighbours_are_parted(tokenizer: PreTrainedTokenizerFast, encoder: Path) -> None:
    text = SEA + TAX + SEA  # short enough that each side is compared whole
    starts = [(n, p + 2) for n, p in enumerate(i for i, c in enumerate(text[:-2]) if c in ".!?" and text[i + 1] == " ")]
    model = BertModel.from_pretrained(encoder).eval()

    def embedding(side: str) -> torch.Tensor:
        with torch.no_grad():
            return model(**tokenizer(side, return_tensors="pt", truncation=True, max_length=126)).last_hidden_state[0].mean(0)

    alike = [float(torch.cosine_similarity(embedding(text[:p]), embedding(text[p:]), dim=0)) for _, p in starts]
    chosen = TopicShift(str(encoder)).choose(text, 0, starts)
    assert alike[chosen] <= min(alike) + 1e-4
    assert max(alike) > min(alike) + 1e-3
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(encoder.parent))
        assert TopicShift(f"~/{encoder.name}").choose(text, 0, starts) == chosen
    shifted = [(n, p + 1000) for n, p in starts]
    assert TopicShift(str(encoder)).choose(text, 1000, shifted) == chosen
    assert TopicShift(str(encoder)).choose(text, 0, [(7, starts[0][1])]) == 7


def test_a_segment_without_sentences_falls_back_to_tokens(tokenizer: PreTrainedTokenizerFast, encoder: Path) -> None:
    text = "word " * 400
    chunks = chunker(tokenizer, encoder).chunk(text)
    assert "".join(text[c.char_start : c.char_end] for c in chunks) == text
    assert {c.num_tokens for c in chunks[:-1]} == {160}


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(UserError, match="is not a model's folder"):
        TopicShift(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text((encoder / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no \.safetensors weights"):
        TopicShift(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((encoder / "model.safetensors").read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded"):
        TopicShift(str(tmp_path))
