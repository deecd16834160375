"""The ways that are compared, before anything is asked."""

from __future__ import annotations

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
