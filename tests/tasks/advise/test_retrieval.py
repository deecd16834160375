"""BM25 finds the passage also in scripts without blanks between words."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import ChunkingParams
from data_schemas.reorder import ChunkingAdvice
from data_schemas.serving_advice import RetrievalSettings
from tasks.advise.retrieval import Passages


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
