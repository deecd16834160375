"""A base's layers, key-value heads, window and rotated pairs by its config.json alone, without transformers, whose import takes seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.params import ModelParams
from tasks.model.base_model import locate

# Model types that rotate all channels of a head; the first ones also have the usual width of a head where none is stated.
_USUAL_HEADS = ("llama", "mistral", "qwen2")
_ROTATE_ALL = (*_USUAL_HEADS, "gemma", "gemma2", "granite", "mixtral", "olmo2", "qwen3", "smollm3")


@dataclass(frozen=True)
class StatedRope:
    """Unscaled RoPE. `window` in tokens; `num_pairs` of rotated channels, None where that is left to transformers."""

    window: int
    num_pairs: int | None


def stated_sizes(model: ModelParams) -> tuple[int | None, int | None]:
    """(layers, key-value heads of a layer) of the text model.

    None for what the file leaves to transformers' defaults, and where no readable file is on this machine: `load_config` finds those.
    UserError for a base folder that is missing.
    """
    config = _stated(model)
    text = config.get("text_config", config)
    layers, heads = (
        text.get(name) if isinstance(text, dict) else None for name in ("num_hidden_layers", "num_key_value_heads")
    )
    return layers if type(layers) is int else None, heads if type(heads) is int else None


def stated_rope(model: ModelParams) -> StatedRope | None:
    """The base's RoPE where the file shows that it is unscaled and the same in all layers. Else None: `read_base_rope` finds it.

    UserError for a base folder that is missing.
    """
    config = _stated(model)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        return None
    apart = ("text_config", "dual_chunk_attention_config", "alibi")
    if any(config.get(name) for name in apart) or any(isinstance(value, dict | list) for value in rope.values()):
        return None
    theta = rope.get("rope_theta", config.get("rope_theta"))
    window = model.window or config.get("max_position_embeddings")
    if type(theta) not in (int, float) or type(window) is not int:
        return None
    return StatedRope(window, None if "partial_rotary_factor" in {*config, *rope} else _num_pairs(config))


def _num_pairs(config: dict[str, Any]) -> int | None:
    kind, width = config.get("model_type"), config.get("head_dim")
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if kind in _USUAL_HEADS and not width and type(hidden) is int and type(heads) is int and heads > 0:
        width = hidden // heads
    return width // 2 if kind in _ROTATE_ALL and type(width) is int and width > 0 and width % 2 == 0 else None


def _stated(model: ModelParams) -> dict[str, Any]:
    """The content of config.json; empty where no readable one is on this machine."""
    file = Path(locate(model)) / "config.json"
    if model.gguf_file or not file.is_file():
        return {}
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
