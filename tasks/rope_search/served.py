"""What programs that serve the model allow a search to choose."""

from __future__ import annotations

from data_schemas.consumers import Feature, RopeUse, ServableId, why_not
from data_schemas.params import PipelineParams


def searches_attention(params: PipelineParams) -> bool:
    """Whether the factor on cosine and sine is searched too: by `rope_search.attention`, and for `auto` unless a program of
    `model.serve_with` computes its own, or short prompts keep the base's frequencies, with which the factor is 1."""
    chosen = params.rope_search.attention
    if chosen != "auto":
        return chosen == "searched"
    return not publishes_two_lists(params) and not misreading(params, "longrope_attention_factor")


def publishes_two_lists(params: PipelineParams) -> bool:
    """Whether short prompts get the base's own frequencies: asked for, and every program of `model.serve_with` switches lists."""
    return params.rope_search.short_factors == "original" and not misreading(params, "longrope_two_lists")


def misreading(params: PipelineParams, feature: Feature) -> dict[ServableId, str]:
    """The programs of `model.serve_with` that read this base's longrope, but not with this feature, and why not.

    UserError if the base's configuration cannot be read, or has no RoPE to scale.
    """
    if not params.model.serve_with:
        return {}
    from tasks.model.base_model import load_config
    from tasks.model.rope_config import read_base_rope

    model = params.model
    base = read_base_rope(load_config(model), model.window)
    numbers = {"original": base.original_length, "target": model.target_length, "served": model.target_length}
    use, usual = (
        RopeUse(model_type=base.model_type, rope_type="longrope", features=frozenset(features), numbers=numbers)
        for features in ({"longrope", feature}, {"longrope"})
    )
    reasons: dict[ServableId, str] = {name: why_not(name, use) for name in model.serve_with}
    return {name: why for name, why in reasons.items() if why != why_not(name, usual)}
