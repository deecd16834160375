"""Which weights LoRA is put on: the user's names, translated to those of the model.

The default names of the projections are Llama's. Some architectures hold several projections in one matrix (Phi-3's `qkv_proj`) or
use other names, and hold the experts of a layer in one tensor of three dimensions, which is no linear layer. peft silently skips a
name that matches nothing, so names are translated here and unknown ones are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError

if TYPE_CHECKING:
    import torch
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
_REWRITTEN = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}  # peft: transformers_weight_conversion.py
_NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # names in configurations


def linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of all linear layers but the output layer, such as model.layers.0.self_attn.q_proj."""
    import torch

    output = model.get_output_embeddings()
    named = model.named_modules()
    return [name for name, module in named if isinstance(module, torch.nn.Linear) and module is not output]


def expert_names(model: PreTrainedModel) -> list[str]:
    """Full names of the tensors that hold one matrix for each expert, such as model.layers.0.mlp.experts.gate_up_proj."""
    return [name for name, p in model.named_parameters() if p.dim() == 3 and "experts" in name.split(".")]


def router_names(model: PreTrainedModel) -> list[str]:
    """Ends of the names of linear layers that choose experts, such as mlp.gate. Low-rank updates of these change which experts run,
    and papers leave them alone, so `all-linear` does too."""
    modules = dict(model.named_modules())
    sizes = {1} | {getattr(model.config, name) for name in _NUM_EXPERTS if isinstance(getattr(model.config, name, None), int)}
    found = [name for name in linear_names(model) if _is_router(name, modules[name], sizes)]
    return sorted(_ends(found))


def _is_router(name: str, layer: Any, sizes: set[int]) -> bool:
    if re.search("router", name, re.IGNORECASE) or "Router" in type(layer).__name__:
        return True
    last = name.rsplit(".", 1)[-1]
    return bool(re.search(r"(^|_)gate$", last)) and len(sizes) > 1 and layer.out_features in sizes


def resolve_targets(targets: Sequence[str], existing: Iterable[str], model_name: str) -> tuple[str, ...]:
    """`targets` translated to the names of the weights `existing` (full names with dots), each once and in order.

    A target is a last component (`q_proj`) or the end of a full name (`self_attn.q_proj`), as in peft; `all-linear` includes all.
    Linear layers go before experts' tensors, which get their container's name (`experts.gate_up_proj`). UserError for a projection
    that the model has under none of the known names.
    """
    if ALL_LINEAR in targets:
        return (ALL_LINEAR,)
    full = list(existing)
    return tuple(dict.fromkeys(_resolve(target, full, model_name) for target in targets))


def _resolve(target: str, full: list[str], model_name: str) -> str:
    container, dot, last = target.rpartition(".")
    names = [f"{container}{dot}{name}" for name in (last, *_OTHER_NAMES.get(last, ()))]
    of_experts = [name for name in full if "experts" in name.split(".")[-2:-1]]
    for places in ([name for name in full if name not in of_experts], of_experts):
        for name in names:
            if any(_is_named(place, [name]) for place in places):
                return name if places is not of_experts or "experts" in container.split(".") else f"experts.{name}"
    have = {name.rsplit(".", 1)[-1] for name in full if name not in of_experts} | {
        ".".join(name.split(".")[-2:]) for name in of_experts
    }
    raise UserError(
        f"training.lora_targets names {target}, which {model_name} does not have: choose from {', '.join(sorted(have))}, or {ALL_LINEAR}."
    )


def lora_places(model: PreTrainedModel, targets: Sequence[str]) -> tuple[str | list[str], list[str]]:
    """What gets LoRA, as peft's `target_modules` (linear layers, by module) and `target_parameters` (by tensor) take it.

    peft rewrites names such as `gate_proj` in models with experts to the experts' tensors and adds their routers, so there such linear
    layers are given to it by tensor. UserError for names that the model does not have.
    """
    linear, experts = linear_names(model), expert_names(model)
    wanted = resolve_targets(targets, [*linear, *experts], type(model).__name__)
    if wanted == (ALL_LINEAR,):
        left_out = [*router_names(model), *_inside_kernels(model)]
        if not experts and not left_out:
            return ALL_LINEAR, []
        wanted = _ends(name for name in [*linear, *experts] if not _is_named(name, left_out))
    tensors = [name for name in wanted if any(_is_named(tensor, [name]) for tensor in experts)]
    rewritten = [name for name in wanted if experts and name not in tensors and name.rsplit(".", 1)[-1] in _REWRITTEN]
    modules = [name for name in wanted if name not in tensors and name not in rewritten]
    return modules, [*tensors, *(f"{name}.weight" for name in rewritten)]


def _inside_kernels(model: PreTrainedModel) -> list[str]:
    """The last projections of state-space layers, whose weights are given to a kernel: LoRA beside them would be passed over."""
    modules = dict(model.named_modules())
    return [
        name
        for name in linear_names(model)
        if name.endswith(".out_proj") and hasattr(modules[name.rpartition(".")[0]], "A_log")
    ]


def _ends(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(".".join(name.split(".")[-2:]) for name in names))


def _is_named(full: str, names: Iterable[str]) -> bool:
    return any(f".{full}".endswith(f".{name}") for name in names)


def refuse_by_tensor(tensors: Sequence[str], has_dropout: bool, has_dora: bool, base_precision: str = "full") -> None:
    """UserError for what LoRA cannot do where its update is added to a tensor and not to a layer's output.

    Tensors named `.weight` are those of linear layers, which are held in fewer bits with another `base_precision`; experts are not.
    """
    held = [name for name in tensors if name.endswith(".weight")]
    if held and base_precision != "full":
        raise UserError(
            f"training.lora_targets includes {', '.join(held)}, to which LoRA is added by tensor in a model with experts, and "
            f"training.base_precision {base_precision} holds no such tensor: set it to full, or name other layers."
        )
    wrong = [name for name, is_on in (("training.lora_dropout", has_dropout), ("training.dora", has_dora)) if is_on]
    if tensors and wrong:
        raise UserError(
            f"training.lora_targets includes {', '.join(tensors)} of a model with experts, which cannot be trained with "
            f"{' and '.join(wrong)}: turn that off, or name other layers."
        )


def embedding_names(model: PreTrainedModel, ends: str) -> list[str]:
    """Last name components of the embeddings to train in full; `ends` is input, both or none. Tied embeddings are one weight."""
    if ends == "none":
        return []
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    wanted: list[torch.nn.Module] = [model.get_input_embeddings()]
    if ends == "both" and not tied:
        wanted.append(model.get_output_embeddings())
    return [name.rsplit(".", 1)[-1] for name, module in model.named_modules() if any(module is one for one in wanted)]
