"""What can be refused before the data stage, a cluster or a GPU has worked for it."""

from __future__ import annotations

from data_schemas.params import PipelineParams


def refuse_untrainable(params: PipelineParams) -> None:
    """UserError for a base model, a RoPE request, LoRA targets or packing settings that cannot work."""
    from ray_jobs.finetune.training.lora import check_targets
    from tasks.model.base_model import check_weights, load_tokenizer
    from tasks.model.extended import rope_plan_for
    from tasks.pack.settings import check_settings

    rope_plan_for(params.model)
    check_weights(params.model)
    load_tokenizer(params.model)
    check_targets(params)
    check_settings(params)


def refuse_unaskable(params: PipelineParams) -> None:
    """UserError for benchmarks that cannot be run here and for questions that cannot be read."""
    from ray_jobs.evaluate.lm_eval import refuse_unavailable
    from tasks.evaluate.prompts.qa import read_qa

    refuse_unavailable(params.evaluation, params.evaluation.arms)
    if params.evaluation.qa_file:
        read_qa(params.evaluation.qa_file)
