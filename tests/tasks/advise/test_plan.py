"""The ways that are compared, before anything is asked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from data_schemas.params import AdviseParams, ChunkingParams
from tasks.advise.plan import plan_ways
from tasks.advise.sentences import way_label


def test_an_encoder_is_named_by_its_folder_alone() -> None:
    advise = AdviseParams(ways=("chunks",), orders=("none",), overlaps=(0.0,), embedding_model="/home/me/encoders/small-en/")
    planned = plan_ways(advise, ChunkingParams(), {"base": 512}, 512, longest_document=800, shortest_document=600)
    named = {way.retrieval.retriever: way.retrieval.embedding_model for way in planned.ways if way.retrieval}
    assert named == {"bm25": None, "embedding": "small-en"}
    assert "(small-en, none)" in way_label(planned.ways[1])
    assert "/home" not in str(planned)


def test_passages_that_are_all_above_their_budget_are_refused() -> None:
    with pytest.raises(ValidationError, match="no size within passage_tokens 100: give a smaller size"):
        AdviseParams(chunk_tokens=(128, 256), passage_tokens=100)
    AdviseParams(chunk_tokens=(64, 256), passage_tokens=100)  # the larger one is left out, and said
