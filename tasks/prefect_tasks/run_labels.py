"""Names and tags of runs: model, lengths and RoPE method, so that a list of runs can be read and filtered."""

from __future__ import annotations

from data_schemas.params import ModelParams, PipelineParams


def run_tags(params: PipelineParams) -> list[str]:
    """Such as `model:demo-base`, `length:2048`, `rope:yarn`; the same for every run of the same extension."""
    method = _planned(params.model)[1]
    return [f"model:{base_name(params.model.base)}", f"length:{params.model.target_length}", f"rope:{method}"]


def extension_of(model: ModelParams) -> str:
    """Such as `demo-base 512 -> 2048 yarn`; without the base's window if the base cannot be read here."""
    window, method = _planned(model)
    return f"{base_name(model.base)} {f'{window} ' if window else ''}-> {model.target_length} {method}"


def base_name(base: str) -> str:
    """The base's own name: the last part of its folder or hub id."""
    if base == "demo":
        return "demo-base"
    return base.rstrip("/").rsplit("/", 1)[-1] or "base"


def _planned(model: ModelParams) -> tuple[int | None, str]:
    """The base's window in tokens and the method that is used. Only the stages refuse a base that cannot be read."""
    from tasks.model.extended import rope_plan_for

    try:
        plan = rope_plan_for(model)
    except Exception:
        return None, model.rope_method
    return plan.base_window, plan.method
