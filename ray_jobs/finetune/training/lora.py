"""What LongLoRA trains: low-rank updates of the projections, and norms and embeddings in full.

Trained weights are float32, whatever the base's dtype: a bfloat16 norm weight of 1.0 never changes at a learning rate of 2e-5,
because the next bfloat16 value is 0.0078 away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.training.lora_targets import ALL_LINEAR, linear_names, resolve_targets
from tasks.model.extended import extended_config
from tasks.model.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


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
