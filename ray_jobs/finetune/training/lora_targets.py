"""The projections that get LoRA, by the names that this base uses for them.

The default names are Llama's. Some architectures hold several projections in one matrix (Phi-3's `qkv_proj`) or use other names.
peft silently skips a name that matches nothing, so part of the projections would not train.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from data_schemas.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"

# Other names of the same projection, or of the matrix that holds it; the first one in the model is used.
_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "q_proj": ("qkv_proj", "query_key_value", "q_b_proj"),
    "k_proj": ("qkv_proj", "query_key_value", "kv_b_proj"),
    "v_proj": ("qkv_proj", "query_key_value", "kv_b_proj"),
    "o_proj": ("dense", "out_proj"),
    "gate_proj": ("gate_up_proj",),
    "up_proj": ("gate_up_proj", "fc1", "dense_h_to_4h"),
    "down_proj": ("fc2", "dense_4h_to_h"),
}


def linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of all linear layers but the output layer, such as model.layers.0.self_attn.q_proj."""
    import torch

    output = model.get_output_embeddings()
    named = model.named_modules()
    return [name for name, module in named if isinstance(module, torch.nn.Linear) and module is not output]


def resolve_targets(targets: Sequence[str], existing: Iterable[str], model_name: str) -> tuple[str, ...]:
    """`targets` translated to the names of the linear layers `existing` (full names with dots), each once and in order.

    A target is a last component (`q_proj`) or the end of a full name (`self_attn.q_proj`), as in peft; `all-linear` includes all.
    UserError for a projection that the model has under none of the known names.
    """
    if ALL_LINEAR in targets:
        return (ALL_LINEAR,)
    full = list(existing)
    have = {name.rsplit(".", 1)[-1] for name in full}
    resolved: list[str] = []
    for target in targets:
        is_path = "." in target and any(f".{name}".endswith(f".{target}") for name in full)
        names = (target, *_OTHER_NAMES.get(target, ()))
        found = target if is_path else next((name for name in names if name in have), None)
        if found is None:
            raise UserError(
                f"training.lora_targets names {target}, which {model_name} does not have: choose from "
                f"{', '.join(sorted(have))}, or {ALL_LINEAR}."
            )
        resolved.append(found)
    return tuple(dict.fromkeys(resolved))
