"""How long a base works and how long it was before any scaling, read from its config or from what the user states.

A config can be read in two ways where RoPE is scaled linearly: `max_position_embeddings` is the length before the scaling (as vLLM
reads it) or after it (deepseek-coder: 16384, with a factor of 4). So the user may state the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_schemas.errors import UserError

WITH_ORIGINAL_INSIDE = ("yarn", "longrope", "llama3")


@dataclass(frozen=True)
class BaseLengths:
    """Tokens: `original` before any scaling, `window` up to which the base works."""

    original: int
    window: int


def read_lengths(parameters: Mapping[str, Any], maximum: int, original: int | None, stated: int | None) -> BaseLengths:
    """The lengths of a base with these `rope_parameters`.

    Without a `stated` window: linear and YaRN, original times factor, as vLLM reads them; dynamic, the original, because it scales
    only beyond that; the others, `maximum`. UserError for a stated window that the scaling cannot mean.
    """
    kind, factor = parameters["rope_type"], parameters.get("factor")
    inside = int(original or maximum) if kind in WITH_ORIGINAL_INSIDE else maximum
    scaled = int(inside * factor) if kind in ("linear", "yarn") and factor else maximum
    if stated is None:
        return BaseLengths(inside, scaled)
    if kind == "linear" and factor:
        if stated < factor or round(stated / factor) * factor != stated:
            raise UserError(
                f"model.window is {stated}, which is not a multiple of the factor {factor:g} by which the base is scaled: state the window "
                "after that scaling, or leave it empty."
            )
        return BaseLengths(round(stated / factor), stated)
    if kind == "yarn" and not inside < stated <= scaled:  # less where the base was scaled for more than it was trained on
        raise UserError(
            f"model.window is {stated}, but the base's YaRN scales {inside} tokens by {factor:g} to {scaled}: state a length between them, "
            "leave it empty, or correct rope_parameters in the base's config.json."
        )
    return BaseLengths(inside if kind in WITH_ORIGINAL_INSIDE else stated, stated)


def nothing_to_extend(target_length: int, window: int) -> UserError:
    """Why nothing is extended to a target within the base's window."""
    return UserError(
        f"There is nothing to extend: target_length {target_length} is within the base's window of {window} tokens; "
        "choose a longer target, or use the base without Ropeway."
    )
