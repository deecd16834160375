"""How a model's config states its rotary embedding: read from a base, written into a release.

transformers 5 has one dict `rope_parameters`; transformers 4 has `rope_scaling` and a top-level `rope_theta`, and vLLM derives the
length it serves from these. A published config has the same values in both spellings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_schemas.consumers import PHI3
from data_schemas.errors import UserError
from data_schemas.storage import write_atomically
from tasks.model.base_lengths import read_lengths
from tasks.model.rope_keys import refuse_own_scaling
from tasks.model.rope_layers import (
    Layers,
    is_by_layer,
    maximum_is_scaled,
    of_full_layers,
    other_layers,
    refuse_unscalable,
    write_layers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

BASE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
DUAL_CHUNK = "dual_chunk_attention_config"  # Qwen2.5-1M; vLLM then ignores the rotary scaling (read at 0cd5784)

# The top-level `original_max_position_embeddings` that these config classes fill in; it goes before the one in the dict.
_TOP_LEVEL_ORIGINAL = dict.fromkeys(PHI3, 4096)
# Other names for the window. vLLM serves the smallest that it finds (0.32, `model_arch_config_convertor.py`).
_WINDOW_NAMES = (
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Config classes that have other names for `rope_theta` and `partial_rotary_factor`.
_OWN_NAMES = {
    name: {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"} for name in ("gpt_neox", "gpt_neox_japanese")
}


@dataclass(frozen=True, kw_only=True)
class BaseRope:
    """The rotary embedding of a base model's config; lengths in tokens."""

    model_type: str
    parameters: dict[str, Any]  # the `rope_parameters` of transformers 5, `rope_theta` included
    max_position_embeddings: int
    original_length: int  # before any scaling
    window: int  # up to which the base works without changes
    rotary_dim: int
    takes_yarn: bool  # the configs of the Phi-3 family accept only longrope
    sliding_window: int | None
    stated_window: int | None = None  # what the user says in `model.window`
    maximum_is_scaled: bool = False  # the maximum is the length after a linear scaling, for all readers
    layers: dict[str, dict[str, Any] | None] = field(
        default_factory=dict
    )  # of layer types that keep their RoPE, see `rope_layers`
    dual_chunk: bool = False  # it has a `dual_chunk_attention_config`, which only vLLM computes

    @property
    def rope_type(self) -> str:
        return str(self.parameters["rope_type"])

    @property
    def theta(self) -> float:
        return float(self.parameters["rope_theta"])


def read_base_rope(config: PreTrainedConfig, window: int | None = None) -> BaseRope:
    """The base's rotary embedding, of the layers in full if layer types differ.

    `window` states up to how many tokens it works, where the config can be read in two ways.
    UserError if its positions cannot be extended by scaling one set of frequencies, or if the config cannot mean that window.
    """
    name = f"{type(config).__name__.removesuffix('Config')} (model_type {config.model_type})"
    given = getattr(config, "rope_parameters", None)
    if not isinstance(given, Mapping) or not given or getattr(config, "alibi", False):
        raise UserError(
            f"{name} has no rotary positions to scale: choose a base with RoPE, such as a Llama, Mistral or Qwen model."
        )
    layers = other_layers(given)
    if is_by_layer(given):
        refuse_unscalable(name, given, getattr(config, "layer_types", None), _sliding_window(config))
        given = of_full_layers(given)
    parameters = {key: value for key, value in given.items() if key != "type" and value is not None}
    rope_type = parameters.setdefault("rope_type", given.get("type") or "default")
    if rope_type not in BASE_TYPES or "mrope_section" in parameters:
        kind = "multimodal" if "mrope_section" in parameters else repr(rope_type)
        raise UserError(
            f"{name} has {kind} RoPE, which cannot be extended here: choose a base with one of {', '.join(BASE_TYPES)}."
        )
    if "rope_theta" not in parameters:
        raise UserError(
            f"{name} has no rope_theta in its rope_parameters (assigning rope_scaling drops it): write it into that dict."
        )
    maximum = getattr(config, "max_position_embeddings", None)
    if not isinstance(maximum, int) or maximum < 1:
        raise UserError(
            f"{name} has max_position_embeddings {maximum!r}: set it in config.json to the window the base was trained on."
        )
    rotary_dim = _rotary_dim(config, parameters, name)
    refuse_own_scaling(name, parameters, rotary_dim)
    dual_chunk = getattr(config, DUAL_CHUNK, None) or {}
    after_scaling = maximum if rope_type == "linear" and maximum_is_scaled(config.model_type) else None
    lengths = read_lengths(
        parameters,
        maximum,
        # In transformers 5 a top-level value overrides the one in the dict.
        original=getattr(config, "original_max_position_embeddings", None)
        or parameters.get("original_max_position_embeddings"),
        stated=window or dual_chunk.get("original_max_position_embeddings") or after_scaling,
    )
    return BaseRope(
        model_type=config.model_type,
        parameters=parameters,
        max_position_embeddings=maximum,
        original_length=lengths.original,
        window=lengths.window,
        rotary_dim=rotary_dim,
        takes_yarn=config.model_type not in {*_TOP_LEVEL_ORIGINAL, "phimoe"},
        sliding_window=_sliding_window(config),
        stated_window=window,
        dual_chunk=bool(dual_chunk),
        maximum_is_scaled=maximum_is_scaled(config.model_type),
        layers=layers,
    )


def _rotary_dim(config: PreTrainedConfig, parameters: Mapping[str, Any], name: str) -> int:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotary_dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
    if rotary_dim < 2 or rotary_dim % 2:
        raise UserError(f"{name} rotates {rotary_dim} channels of a head, which do not form pairs: choose another base.")
    return rotary_dim


def _sliding_window(config: PreTrainedConfig) -> int | None:
    window = getattr(config, "sliding_window", None)
    return window if window and getattr(config, "use_sliding_window", True) else None


def published_config(
    config: Mapping[str, Any], parameters: Mapping[str, Any], max_position_embeddings: int, layers: Layers | None = None
) -> dict[str, Any]:
    """`config` (the content of a config.json) with its rotary embedding in the spellings of all consumers.

    `rope_parameters` for transformers 5; for transformers 4 `rope_scaling`, without a `rope_theta` inside, and a top-level
    `rope_theta`. A top-level `original_max_position_embeddings` is removed, because vLLM would serve only that length, and so is
    `dual_chunk_attention_config`, for which vLLM would ignore the scaling. Every other name of the window gets the new value.
    `layers` are the layer types that keep their RoPE, written as in `rope_layers`.
    """
    published = {**config, "rope_parameters": dict(parameters), "max_position_embeddings": max_position_embeddings}
    published |= {name: max_position_embeddings for name in _WINDOW_NAMES if isinstance(config.get(name), int)}
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    published["rope_scaling"] = scaling if parameters["rope_type"] != "default" else None
    published["rope_theta"] = parameters["rope_theta"]
    if layers:
        write_layers(published, parameters, layers)
        return published
    if "partial_rotary_factor" in parameters:
        published["partial_rotary_factor"] = parameters["partial_rotary_factor"]
    model_type = config.get("model_type", "")
    for ours, theirs in _OWN_NAMES.get(model_type, {}).items():
        if ours in parameters:
            published[theirs] = parameters[ours]
    published.pop("original_max_position_embeddings", None)
    published.pop(DUAL_CHUNK, None)
    original = parameters.get("original_max_position_embeddings")
    if original is not None and original != _TOP_LEVEL_ORIGINAL.get(model_type, original):
        published["original_max_position_embeddings"] = original
    return published


def write_published_config(
    model_dir: Path, parameters: Mapping[str, Any], max_position_embeddings: int, layers: Layers | None = None
) -> None:
    """Rewrite `model_dir`/config.json by `published_config`. Do this last, because `save_pretrained` drops the old spelling.

    UserError if there is no config.json, or if the installed transformers reads other values back.
    """
    from transformers import AutoConfig

    path = model_dir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}): save the model there before its RoPE plan is written.") from error
    published = published_config(config, parameters, max_position_embeddings, layers)
    write_atomically(path, json.dumps(published, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    reread = AutoConfig.from_pretrained(model_dir)
    if difference := reading_difference(reread, parameters, max_position_embeddings, layers):
        raise UserError(
            f"transformers reads other values from {path} than were written ({difference}): choose another rope_method for this base."
        )


def reading_difference(
    config: PreTrainedConfig, parameters: Mapping[str, Any], max_position_embeddings: int, layers: Layers | None = None
) -> str:
    """The first difference between a loaded config and what was written; "" if there is none."""
    given = config.rope_parameters or {}
    read = {key: value for key, value in of_full_layers(given).items() if key != "type" and value is not None}
    # Some config classes fill in the neutral value.
    neutral = {"partial_rotary_factor": 1.0}
    for key in sorted(neutral | read | dict(parameters)):
        if read.get(key, neutral.get(key)) != parameters.get(key, neutral.get(key)):
            return f"{key} is {read.get(key)!r} instead of {parameters.get(key)!r}"
    if other_layers(given) != dict(layers or {}):
        return f"the RoPE of other layers is {other_layers(given)} instead of {dict(layers or {})}"
    if config.max_position_embeddings != max_position_embeddings:
        return f"max_position_embeddings is {config.max_position_embeddings} instead of {max_position_embeddings}"
    return ""
