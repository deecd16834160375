"""The objective: the summed next-token loss of packed rows, with S2-Attn or full attention."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.segments import default_group_size
from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.loss import next_token_targets, summed_cross_entropy

if TYPE_CHECKING:
    from peft import PeftModel


def summed_loss(model: PeftModel, batch: MicroBatch, chunk_tokens: int, kernel: str = "auto") -> torch.Tensor:
    """Loss summed over the micro batch's targets, in nats, without holding all logits at once."""
    causal_lm: Any = model.get_base_model()
    backbone = getattr(causal_lm, causal_lm.base_model_prefix)
    hidden = backbone(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).last_hidden_state
    targets = next_token_targets(batch.input_ids[0], batch.position_ids[0])
    return summed_cross_entropy(causal_lm.get_output_embeddings(), hidden[0], targets, chunk_tokens, kernel)


class Objective(torch.nn.Module):
    """The model and its loss as one module, so that FSDP gathers the output layer's weights while the loss needs them."""

    def __init__(self, model: PeftModel, training: TrainingParams) -> None:
        super().__init__()
        self.model = model
        self.training_params = training

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """The micro batch's summed loss, in the training's precision."""
        training = self.training_params
        with autocast(training, batch.input_ids.device):
            return summed_loss(self.model, batch, training.loss_chunk_tokens, training.loss_kernel)


def autocast(training: TrainingParams, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if training.precision == "bf16" else contextlib.nullcontext()


def group_size_at(step: int, params: PipelineParams) -> int:
    """Group size of S2-Attn at a step. With groups twice as long as a row, S2-Attn is exactly full attention within documents."""
    training, target = params.training, params.model.target_length
    if training.attention == "full" or step >= training.steps - training.full_attention_steps:
        return 2 * target
    return training.s2_group_size or default_group_size(target)


def set_group_size(model: torch.nn.Module, group_size: int) -> None:
    """Make every attention layer use groups of `group_size` tokens from now on."""
    for module in model.modules():
        if hasattr(module, "is_causal"):
            config: Any = module.config
            config.s2_group_size = group_size


@contextlib.contextmanager
def evaluating(model: torch.nn.Module, *, sparse: bool) -> Iterator[None]:
    """Evaluation mode without gradients; with `sparse`, attention layers alone stay in training mode, so S2-Attn is measured."""
    model.eval()
    try:
        if sparse:
            for module in model.modules():
                if hasattr(module, "is_causal"):
                    module.training = True  # only this module: dropout inside it stays off
        with torch.no_grad():
            yield
    finally:
        model.train()
