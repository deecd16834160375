"""`ropeway plan`: what a run would do, worked out from configurations alone."""

from rich.console import Console
from rich.table import Table

from data_schemas.params import PipelineParams


def print_plan(params: PipelineParams) -> None:
    """Print the RoPE plan and its reason, the attention, what trains and how many tokens. UserError if the run cannot work."""
    from ray_jobs.finetune.extended import rope_plan_for

    rows = [("base", params.model.base), *rope_plan_for(params.model).describe(), *_training(params)]
    table = Table("what", "value", title=f"Plan of {params.run_name}", title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)


def _training(params: PipelineParams) -> list[tuple[str, str]]:
    from ray_jobs.finetune.loop import group_size_at

    training, target = params.training, params.model.target_length
    trainable, total = _weights(params)
    tokens = training.rows_per_step * target
    group = group_size_at(0, params)
    return [
        ("attention in training", f"S2-Attn in groups of {group} tokens" if training.attention == "s2" else "full"),
        ("attention in evaluation", "full"),
        ("trained weights", f"{trainable:,} of {total:,} (LoRA rank {training.lora_rank}, norms and embeddings as set)"),
        ("tokens in a step", f"up to {tokens:,} in {training.rows_per_step} rows of {target:,}"),
        ("steps", f"{training.steps:,}, up to {tokens * training.steps:,} tokens"),
        ("workers", f"{params.ray.num_workers} on {'GPU' if params.ray.use_gpu else 'CPU'}, Ray at {params.ray.address}"),
    ]


def _weights(params: PipelineParams) -> tuple[int, int]:
    """(weights that train, all weights of the base), counted on a model without storage."""
    import torch
    from transformers import AutoModelForCausalLM

    from ray_jobs.finetune.base_model import load_config
    from ray_jobs.finetune.lora import add_trainable_weights, trainable

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(load_config(params.model))
        total = sum(p.numel() for p in base.parameters())
        model = add_trainable_weights(base, params.training)
    return sum(p.numel() for _, p in trainable(model)), total
