"""RoPE by layer type: models whose layers with a short window rotate otherwise than those that attend in full (Gemma 3).

Only the layers in full are scaled. The others never see a distance beyond their window, so they keep what they were trained with.

transformers 5   `rope_parameters` has one dict for each layer type
transformers 4   Gemma 3: `rope_theta` and `rope_scaling` are those of the layers in full, `rope_local_base_freq` is the others' base
vLLM 0.32        reads the config through transformers 5; of Gemma 3 it does not multiply the maximum by a factor
                 (`model_executor/models/gemma3.py`, `config/model.py`: `_get_and_verify_max_len`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from data_schemas.errors import UserError

FULL = "full_attention"
LOCAL = "sliding_attention"
LOCAL_THETA = "rope_local_base_freq"
_MAXIMUM_IS_SCALED = ("gemma3*",)

Layers = Mapping[str, Mapping[str, Any] | None]
"""Layer type to its `rope_parameters`; None for layers without rotary positions."""


def is_by_layer(parameters: Any) -> bool:
    """Whether a `rope_parameters` has a dict for each layer type."""
    return isinstance(parameters, Mapping) and any(isinstance(value, Mapping) for value in parameters.values())


def of_full_layers(parameters: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The part of a `rope_parameters` that is about layers in full: all of it, if it has no parts."""
    if parameters is None or not is_by_layer(parameters):
        return parameters or {}
    return parameters.get(FULL) or {}


def other_layers(parameters: Mapping[str, Any] | None) -> dict[str, dict[str, Any] | None]:
    """The parts of a `rope_parameters` that are about other layers, without empty values; {} if it has no parts."""
    if parameters is None or not is_by_layer(parameters):
        return {}
    return {
        kind: {key: value for key, value in part.items() if key != "type" and value is not None}
        if isinstance(part, Mapping)
        else None
        for kind, part in parameters.items()
        if kind != FULL
    }


def joined(full: Mapping[str, Any], layers: Layers) -> dict[str, Any]:
    """The `rope_parameters` of a config: `full` itself where all layers are alike."""
    return {FULL: dict(full), **{kind: part and dict(part) for kind, part in layers.items()}} if layers else dict(full)


def maximum_is_scaled(model_type: str) -> bool:
    """Whether `max_position_embeddings` is the length after a linear scaling, also for vLLM."""
    return any(fnmatchcase(model_type, pattern) for pattern in _MAXIMUM_IS_SCALED)


def refuse_unscalable(name: str, parameters: Mapping[str, Any], layer_types: Sequence[str] | None, window: int | None) -> None:
    """UserError unless the layers in full can be scaled and all others are bounded by a window of `window` tokens."""
    kinds = ", ".join(parameters)
    if FULL not in parameters or set(parameters) - {FULL, LOCAL}:
        why = f"which of them reach as far as the context ({kinds}) is not known here"
    elif not isinstance(parameters[FULL], Mapping):
        why = "those that attend in full have no rotary positions, so there is nothing to scale"
    elif layer_types is not None and FULL not in layer_types:
        why = "none of them attends in full, so a longer context would not reach any"
    elif parameters.get(LOCAL) is not None and not window:
        why = f"its {LOCAL} layers have no sliding_window"
    else:
        return
    raise UserError(
        f"{name} has separate rotary frequencies for each layer type, and {why}: choose a base whose layers are "
        f"{FULL} and {LOCAL}, such as Gemma 3, or that has one set of frequencies."
    )


def write_layers(config: dict[str, Any], full: Mapping[str, Any], layers: Layers) -> None:
    """Write RoPE by layer type into the content of a config.json, in place, in all spellings that its readers have."""
    config["rope_parameters"] = joined(full, layers)
    for key in ("rope_scaling", "rope_theta", "partial_rotary_factor", LOCAL_THETA):
        config.pop(key, None)
    local = layers.get(LOCAL)
    if not maximum_is_scaled(config.get("model_type", "")) or local is None or local.get("rope_type") != "default":
        return  # the older spelling would replace the parts, or cannot say what they are
    scaling = {key: value for key, value in full.items() if key != "rope_theta"}
    config["rope_scaling"] = scaling if full["rope_type"] != "default" else None
    config["rope_theta"] = full["rope_theta"]
    config[LOCAL_THETA] = local["rope_theta"]
