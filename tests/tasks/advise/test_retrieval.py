"""BM25 finds the passage also in scripts without blanks between words; an encoder finds the one that is most alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import ChunkingParams
from data_schemas.reorder import ChunkingAdvice
from data_schemas.serving_advice import RetrievalSettings
from tasks.advise.retrieval import Passages
from tests.tasks.encoder_example import write_encoder

WORDS = ("bridge", "valley", "cliff", "coin", "river", "stone", "wind", "path", "lantern", "market", "rain")


@pytest.mark.parametrize(
    ("filler", "fact", "question"),
    [
        ("这座山谷里有一座古老的桥。", "东京塔的高度是三百三十三米。", "东京塔有多高？"),
        ("หุบเขานี้ลึกและเงียบสงบ ", "หอคอยโตเกียวสูงสามร้อยเมตร ", "หอคอยโตเกียวสูงเท่าไร"),
        ("The valley is deep and quiet. ", "TOWER one is 333 metres high. ", "How high is tower one?"),
    ],
)
def test_the_passage_with_the_words_of_the_question_is_found(
    tokenizer: PreTrainedTokenizerFast, filler: str, fact: str, question: str
) -> None:
    passages = Passages(tokenizer, ChunkingParams(segmenter="fast"), None)
    cut = ChunkingAdvice(strategy="semantic", max_tokens=160, overlap_fraction=0)
    settings = RetrievalSettings(chunking=cut, retriever="bm25", k=1, budget_tokens=160, order="none")
    (found,) = passages.in_prompt_order("\n".join([*[filler] * 8, fact, *[filler] * 8]), question, settings)
    assert fact[:3] in found, "the fact begins with words of the question"


def test_an_encoder_finds_the_passage_that_is_most_like_the_question(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    encoder = write_encoder(tmp_path / "encoder", tokenizer)
    passages = Passages(tokenizer, ChunkingParams(segmenter="fast"), str(encoder))
    cut = ChunkingAdvice(strategy="semantic", max_tokens=64, overlap_fraction=0)
    document = "\n".join(f"The {word} of {number} is near the {word}." for number, word in enumerate(WORDS))
    settings = RetrievalSettings(
        chunking=cut, retriever="embedding", embedding_model="encoder", k=2, budget_tokens=128, order="none"
    )
    cuts = passages.cut(document, cut)
    assert len(set(cuts)) == len(cuts) > 2
    for passage in cuts:
        found = passages.in_prompt_order(document, passage, settings)
        assert (found[0], len(found)) == (passage, 2), "nothing is more like a text than itself"
        reversed_order = settings.model_copy(update={"order": "reverse_rank"})
        assert passages.in_prompt_order(document, passage, reversed_order) == found[::-1]
