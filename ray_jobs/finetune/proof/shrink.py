"""The base's configuration with few layers and small widths, for a proof on the CPU.

What decides the attention stays: kinds of layers, key-value heads shared or not, head dimension and rotary frequencies, sinks, caps,
scales. A window keeps its relation to a group and to a row. One layer of each kind is kept, and at least two layers.
"""

from __future__ import annotations

import copy
from typing import Any

ROW, GROUP, VOCABULARY = 48, 12, 96
_WIDTHS = {  # names of widths in configurations, and what they become at most; names of other classes are mapped by transformers
    "intermediate_size": 64, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "shared_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32, "ffn_dim": 64, "ffn_hidden_size": 64, "n_inner": 64, "expert_ffn_hidden_size": 32,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2, "moe_topk": 2,
    "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "num_shared_experts": 1, "moe_num_shared_experts": 1, "moe_k": 2,
    "q_lora_rank": 16, "kv_lora_rank": 16, "index_topk": 4096, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "hidden_size_per_layer_input": 16, "laurel_rank": 8, "dim_model_base": 64, "zero_expert_num": 1,
}  # fmt: skip
_FIRST_LAYERS = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", "max_window_layers")
_OFF = {
    "output_router_logits": False,
    "num_nextn_predict_layers": 0,
    "num_kv_shared_layers": 0,
    "num_mtp_layers": 0,
    "use_cache": False,
}
_WINDOWS = ("sliding_window", "attention_chunk_size", "sliding_window_size", "local_attention_window")


def shrunken(config: Any, row_tokens: int, group_size: int) -> Any:
    """A copy of `config`, which has its RoPE plan already, for rows of ROW tokens in groups of GROUP.

    `row_tokens` and `group_size` are those of the training. Raises whatever the config class raises.
    """
    small = copy.deepcopy(config)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads, shared = config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    num_heads, num_kv = (2, 2) if shared == heads else (2, 1) if shared == 1 else (4, 2)
    _set(small, "num_attention_heads", num_heads)
    if hasattr(config, "num_key_value_heads"):
        _set(small, "num_key_value_heads", num_kv)
    if hasattr(config, "head_dim"):  # some classes leave it empty
        _set(small, "head_dim", head_dim)
    _set(small, "hidden_size", num_heads * head_dim)
    for name, most in _WIDTHS.items():
        given = getattr(config, name, None)
        if isinstance(given, int) and not isinstance(given, bool):
            _set(small, name, min(given, most))
        elif isinstance(given, list | tuple) and all(isinstance(width, int) for width in given):  # one for each layer
            _set(small, name, [min(width, most) for width in given])
    for name in ("vocab_size", "vocab_size_per_layer_input"):
        if hasattr(config, name):
            _set(small, name, VOCABULARY)
    for name, value in _OFF.items():
        if hasattr(config, name):
            _set(small, name, value)
    _shrink_state_space(small)
    _keep_layers(small, config)
    _scale_windows(small, row_tokens, group_size)
    _without_chance(small)
    for name, token in (("pad_token_id", 0), ("bos_token_id", 1), ("eos_token_id", 2)):
        if getattr(config, name, None) is not None:
            _set(small, name, token)
    return small


def kept_layers(config: Any) -> list[int]:
    """Numbers of the layers that a proof keeps: the first of each kind, and at least two. A kind is what all lists by layer say."""
    count = config.num_hidden_layers
    by_layer = [*_lists(config, count).values(), *_kinds(config, count)]
    firsts: dict[str, int] = {}
    for layer in range(count):
        firsts.setdefault(repr([values[layer] for values in by_layer] + [layer < _num_first(config)]), layer)
    kept = sorted(firsts.values())
    return kept if len(kept) > 1 else [0, min(1, count - 1)]


def _num_first(config: Any) -> int:
    """How many of the first layers have a dense MLP before those with experts."""
    numbers = [getattr(config, name, None) for name in _FIRST_LAYERS]
    return max((n for n in numbers if isinstance(n, int) and n < config.num_hidden_layers), default=0)


def _lists(config: Any, count: int) -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if isinstance(value, list | tuple) and len(value) == count > 2}


def _kinds(config: Any, count: int) -> list[Any]:
    """Kinds of layers that a class computes from other settings, such as a period."""
    found = [getattr(config, name, None) for name in ("layer_types", "layers_block_type")]
    return [value for value in found if isinstance(value, list | tuple) and len(value) == count]


def _keep_layers(small: Any, config: Any) -> None:
    kept = kept_layers(config)
    if getattr(config, "attn_layer_period", None):  # Jamba: attention in every k-th layer
        for name, value in (
            ("attn_layer_period", 2),
            ("attn_layer_offset", 1),
            ("expert_layer_period", 2),
            ("expert_layer_offset", 1),
        ):
            _set(small, name, value)
    if isinstance(indices := getattr(config, "attn_layer_indices", None), list):  # Bamba
        _set(small, "attn_layer_indices", [place for place, layer in enumerate(kept) if layer in indices])
    if pattern := getattr(config, "block_types", None):  # RecurrentGemma repeats it
        _set(small, "block_types", [pattern[layer % len(pattern)] for layer in kept])
    for name, values in _lists(small, config.num_hidden_layers).items():
        _set(small, name, [values[layer] for layer in kept])
    for name in _FIRST_LAYERS:
        number = getattr(config, name, None)
        if isinstance(number, int) and not isinstance(number, bool):
            _set(small, name, sum(layer < number for layer in kept))
    if isinstance(sparse := getattr(config, "mlp_only_layers", None), list):
        _set(small, "mlp_only_layers", [place for place, layer in enumerate(kept) if layer in sparse])
    _set(small, "num_hidden_layers", len(kept))


def _shrink_state_space(small: Any) -> None:
    """State-space layers with few heads and a small state; their width is that of the hidden states times `expand`."""
    inner = small.hidden_size * (getattr(small, "mamba_expand", None) or getattr(small, "expand", None) or 1)
    sizes = {"mamba_n_heads": 4, "mamba_d_head": inner // 4, "mamba_d_ssm": inner, "mamba_d_state": 16, "mamba_chunk_size": 8,
             "mamba_n_groups": 1, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1,
             "lru_width": small.hidden_size}  # fmt: skip
    for name, value in sizes.items():
        if getattr(small, name, None) is not None:
            _set(small, name, value)


def _scale_windows(small: Any, row_tokens: int, group_size: int) -> None:
    for name in _WINDOWS:
        window = getattr(small, name, None)
        if isinstance(window, int) and not isinstance(window, bool) and window < row_tokens:
            scaled = round(window * GROUP / group_size)
            _set(small, name, min(max(scaled, 2), GROUP - 1) if window < group_size else min(max(scaled, GROUP), ROW - 1))


def _without_chance(small: Any) -> None:
    for name, value in list(vars(small).items()):
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop") or "jitter" in name):
            _set(small, name, 0.0)


def _set(config: Any, name: str, value: Any) -> None:
    """Through transformers' map of names; classes that compute a value from others have nothing to set."""
    try:
        setattr(config, name, value)
    except AttributeError:
        return
