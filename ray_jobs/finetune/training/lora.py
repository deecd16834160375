"""What LongLoRA trains: low-rank updates of the projections, and norms and embeddings in full.

Trained weights are float32, whatever the base's dtype: a bfloat16 norm weight of 1.0 never changes at a learning rate of 2e-5,
because the next bfloat16 value is 0.0078 away.

The default names of the projections are Llama's. Some architectures hold several projections in one matrix (Phi-3's `qkv_proj`) or
use other names. peft silently skips a name that matches nothing, so `resolve_targets` translates the names and refuses unknown ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, TrainingParams
from tasks.model.extended import extended_config
from tasks.model.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
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


def norm_names(model: PreTrainedModel) -> list[str]:
    """Last name components of the modules that are norms, such as input_layernorm."""
    return sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if "Norm" in type(module).__name__})


def check_targets(params: PipelineParams) -> None:
    """UserError, without loading any weight, if the base lacks a layer named in training.lora_targets."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"), quiet_transformers():
        model = AutoModelForCausalLM.from_config(extended_config(params.model))
    resolve_targets(params.training.lora_targets, linear_names(model), type(model).__name__)


def add_trainable_weights(model: PreTrainedModel, training: TrainingParams) -> PeftModel:
    """Wrap `model` so that only LoRA, norms and embeddings train, in float32. UserError if no layer matches the targets."""
    from peft import LoraConfig, get_peft_model

    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    full: list[str] = norm_names(model) if training.train_norms else []
    if training.train_embeddings:
        ends = [model.get_input_embeddings()] + ([] if tied else [model.get_output_embeddings()])
        full += [name.rsplit(".", 1)[-1] for name, module in model.named_modules() if any(module is end for end in ends)]
    targets = resolve_targets(training.lora_targets, linear_names(model), type(model).__name__)
    config = LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        lora_dropout=training.lora_dropout,
        target_modules=ALL_LINEAR if targets == (ALL_LINEAR,) else list(targets),
        modules_to_save=full or None,
        ensure_weight_tying=tied and training.train_embeddings,
        task_type="CAUSAL_LM",
    )
    try:
        peft_model = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(
            f"training.lora_targets {list(targets)} match no layer of {type(model).__name__}: "
            "name its projections, or use all-linear."
        ) from error
    for _, parameter in trainable(peft_model):
        parameter.data = parameter.data.float()
    return peft_model


def trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """(name, weight) of all trained weights, in a stable order; a tied weight appears once."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def is_lora(name: str) -> bool:
    return "lora_" in name
