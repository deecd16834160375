"""Which features of a rotary embedding a config.json uses, named as in `data_schemas.consumers`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from data_schemas.consumers import RopeUse
from tasks.model.rope_frequencies import longrope_attention_factor, yarn_attention_factor
from tasks.model.rope_layers import is_by_layer, maximum_is_scaled, of_full_layers


def rope_use(config: Mapping[str, Any], target_length: int) -> RopeUse:
    """The features of `config`, the content of a config.json of a model for `target_length` tokens."""
    parameters = config.get("rope_scaling") or of_full_layers(config.get("rope_parameters"))
    model_type = config.get("model_type", "")
    rope_type = parameters.get("rope_type") or parameters.get("type") or "default"
    maximum = config["max_position_embeddings"]
    numbers = {
        "target": target_length,
        "served": maximum if maximum_is_scaled(model_type) else int(maximum * (parameters.get("factor") or 1)),
        "original": parameters.get("original_max_position_embeddings") or maximum,
    }
    details = {
        "by_layer_type": is_by_layer(config.get("rope_parameters")),
        "linear_other_length": rope_type == "linear" and numbers["served"] != target_length,
        "longrope_two_lists": rope_type == "longrope"
        and list(parameters.get("short_factor", ())) != list(parameters.get("long_factor", ())),
    }
    if rope_type == "longrope":
        usual = longrope_attention_factor(parameters.get("factor") or 1.0, numbers["original"])
        given = parameters.get("attention_factor")
        details["longrope_attention_factor"] = given is not None and not math.isclose(given, usual, rel_tol=1e-6)
    if rope_type == "yarn":
        details |= {f"yarn_{key}": key in parameters for key in ("attention_factor", "mscale", "mscale_all_dim", "truncate")}
        implied = yarn_attention_factor({"factor": parameters["factor"]})
        details["yarn_other_attention_factor"] = yarn_attention_factor(parameters) != implied
    features = frozenset({rope_type, *(name for name, is_used in details.items() if is_used)})
    return RopeUse(model_type=model_type, rope_type=rope_type, features=features, numbers=numbers)
