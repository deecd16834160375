"""What programs that serve the model allow a search to choose."""

from __future__ import annotations

from data_schemas.consumers import Feature, RopeUse, ServableId, why_not
from data_schemas.params import PipelineParams

_NUMBERS = {"original": 0, "target": 0, "served": 0}  # which a reason may name


def searches_attention(params: PipelineParams) -> bool:
    """Whether the factor on cosine and sine is searched too: by `rope_search.attention`, and for `auto` unless a program of
    `model.serve_with` computes its own."""
    chosen = params.rope_search.attention
    if chosen != "auto":
        return chosen == "searched"
    return not misreading(params, "longrope_attention_factor")


def publishes_two_lists(params: PipelineParams) -> bool:
    """Whether short prompts get the base's own frequencies: asked for, and every program of `model.serve_with` switches lists."""
    return params.rope_search.short_factors == "original" and not misreading(params, "longrope_two_lists")


def misreading(params: PipelineParams, feature: Feature) -> tuple[ServableId, ...]:
    """The programs of `model.serve_with` that read longrope, but not with this feature."""
    use, usual = (
        RopeUse(model_type="", rope_type="longrope", features=frozenset(features), numbers=_NUMBERS)
        for features in ({"longrope", feature}, {"longrope"})
    )
    return tuple(name for name in params.model.serve_with if why_not(name, use) != why_not(name, usual))
