"""What programs that serve the model allow a search to choose."""

from __future__ import annotations

from data_schemas.consumers import RopeUse, current_id, why_not
from data_schemas.params import PipelineParams


def searches_attention(params: PipelineParams) -> bool:
    """Whether the factor on cosine and sine is searched too: by `rope_search.attention`, and for `auto` unless a program of
    `model.serve_with` computes its own."""
    chosen = params.rope_search.attention
    if chosen != "auto":
        return chosen == "searched"
    use = RopeUse(model_type="", rope_type="longrope", features=frozenset({"longrope", "longrope_attention_factor"}))
    usual = RopeUse(model_type="", rope_type="longrope", features=frozenset({"longrope"}))
    programs = tuple(map(current_id, params.model.serve_with))
    return all(why_not(name, use) == why_not(name, usual) for name in programs)
