"""What LongLoRA trains: low-rank updates of the projections, and norms and embeddings in full.

Trained weights are float32, whatever the base's dtype: a bfloat16 norm weight of 1.0 never changes at a learning rate of 2e-5,
because the next bfloat16 value is 0.0078 away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.training.attention_dropout import refuse_kept_outputs
from ray_jobs.finetune.training.fast_layers import keep_first_layers
from ray_jobs.finetune.training.fused_norms import describe_norms, formulas_of
from ray_jobs.finetune.training.row_parts import refuse_uncuttable
from ray_jobs.finetune.training.targets import embedding_names, lora_places, refuse_by_tensor
from ray_jobs.finetune.training.tiled_mlp import tile_mlps
from tasks.model.extended import extended_config
from tasks.model.optional_imports import load_peft
from tasks.model.quantised_linear import refuse_unreached
from tasks.model.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def norm_names(model: PreTrainedModel) -> list[str]:
    """Last name components of the modules that are norms, such as input_layernorm."""
    return sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if "Norm" in type(module).__name__})


def check_targets(params: PipelineParams) -> None:
    """UserError, without loading any weight, if the base lacks a layer named in training.lora_targets, if most of its weights are
    where training.base_precision does not reach them, if rows cannot be cut as ray.sequence_workers asks, if training.attention_outputs
    cannot be kept, or if training.norm_kernel does not compute its norms."""
    model = _without_weights(params)
    _places(model, params.training)
    refuse_kept_outputs(model.config, params.training)
    if params.ray.sequence_workers > 1:
        refuse_uncuttable(model)
    if params.training.kept_layers:
        keep_first_layers(model, params.training.kept_layers)
    if params.training.mlp_tile_tokens is not None:
        tile_mlps(model, params.training.mlp_tile_tokens)
    if params.training.norm_kernel == "liger":
        formulas_of(model)
    if params.training.base_precision != "full":
        refuse_unreached(model, params.training.base_precision)


def describe_norm_kernel(params: PipelineParams) -> str | None:
    """Which norms `training.norm_kernel` computes, without loading any weight; None for torch. UserError for norms that it cannot."""
    return describe_norms(_without_weights(params)) if params.training.norm_kernel == "liger" else None


def _without_weights(params: PipelineParams) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"), quiet_transformers():
        return AutoModelForCausalLM.from_config(extended_config(params.model, as_served=True))


def _places(model: PreTrainedModel, training: TrainingParams) -> tuple[str | list[str], list[str]]:
    """What gets LoRA, by module and by tensor. UserError for names that the model does not have."""
    modules, tensors = lora_places(model, training.lora_targets)
    refuse_by_tensor(tensors, training.lora_dropout > 0, training.dora, training.base_precision)
    return modules, tensors


def add_trainable_weights(model: PreTrainedModel, training: TrainingParams) -> PeftModel:
    """Wrap `model` so that only LoRA, norms and embeddings train, in float32. UserError if no layer matches the targets."""
    load_peft()
    from peft import LoraConfig, get_peft_model

    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    full: list[str] = norm_names(model) if training.train_norms else []
    full += embedding_names(model, training.train_embeddings)
    modules, tensors = _places(model, training)
    config = LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        lora_dropout=training.lora_dropout,
        use_rslora=training.rslora,
        use_dora=training.dora,
        target_modules=modules,
        target_parameters=tensors or None,
        modules_to_save=full or None,
        ensure_weight_tying=tied and training.train_embeddings != "none",
        task_type="CAUSAL_LM",
    )
    try:
        peft_model = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(
            f"training.lora_targets {list(training.lora_targets)} cannot be used on {type(model).__name__} "
            f"({' '.join(str(error).split())[:200]}): name other projections of it."
        ) from error
    for _, parameter in trainable(peft_model):
        parameter.data = parameter.data.float()
    return peft_model


def trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """(name, weight) of all trained weights, in a stable order; a tied weight appears once."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def is_lora(name: str) -> bool:
    return "lora_" in name


def is_magnitude(name: str) -> bool:
    """Whether this is DoRA's vector of lengths, one for each output channel of a weight."""
    return "lora_magnitude_vector" in name
