"""The objective: the summed next-token loss of packed rows, with S2-Attn or full attention."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.attention import full_heads, is_full_layer, measure_sparse
from ray_jobs.finetune.full_layers import Head, num_kv_heads_of
from ray_jobs.finetune.grouped_layers import layers_in_groups, sparse_group_size
from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.chunked_loss import LossSums, token_losses
from ray_jobs.finetune.training.loss import IGNORED, next_token_targets, summed_cross_entropy, weighted_cross_entropy
from ray_jobs.finetune.training.row_parts import part_of_places, shifted_places
from ray_jobs.finetune.training.row_rotation import mark_short
from ray_jobs.finetune.training.token_weights import TokenWeights
from tasks.model.output_layer import output_layer
from tasks.model.rotary_modules import forget_lengths

if TYPE_CHECKING:
    from peft import PeftModel


def summed_loss(model: PeftModel, batch: MicroBatch, chunk_tokens: int, kernel: str = "auto") -> torch.Tensor:
    """Loss summed over the micro batch's targets, in nats, without holding all logits at once."""
    head, hidden, targets = _predictions(model, batch)
    return summed_cross_entropy(head, hidden, targets, chunk_tokens, kernel)


def _predictions(model: PeftModel, batch: MicroBatch) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """(the output layer, hidden states [T, E], targets [T]). Dynamic RoPE turns by this batch's longest document alone."""
    causal_lm: Any = model.get_base_model()
    backbone = getattr(causal_lm, causal_lm.base_model_prefix)
    whole, part = batch.whole or batch, batch.part
    marks = {} if batch.in_full is None or part is not None else {"s2_in_full": batch.in_full}
    short = None if batch.short is None else mark_short(batch.position_ids, batch.short)
    forget_lengths(backbone)
    hidden = backbone(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **marks).last_hidden_state
    if batch.in_full is not None and not getattr(batch.in_full, "_s2_is_read", False):
        raise UserError(
            f"{type(causal_lm).__name__} does not pass on which documents attend in full: set training.attention to full, "
            "or train without such documents."
        )
    if short is not None and not short.is_read:
        raise UserError(
            f"{type(causal_lm).__name__} does not pass its positions on to its rotary embedding, so rows cannot have their own: set "
            "training.short_window_share to 0, or give long_factor as both lists."
        )
    if part is not None and not part.is_read:
        raise UserError(
            f"{type(causal_lm).__name__} does not pass its positions on to its attention layers, so a row cannot be cut: set "
            "ray.sequence_workers to 1."
        )
    targets = next_token_targets(whole.input_ids[0], whole.position_ids[0])
    if whole.scored is not None:
        targets[:-1] = torch.where(whole.scored[0, 1:], targets[:-1], IGNORED)
    return output_layer(causal_lm), hidden[0], part_of_places(targets, part)


class Objective(torch.nn.Module):
    """The model and its loss as one module, so that FSDP gathers the output layer's weights while the loss needs them."""

    def __init__(self, model: PeftModel, training: TrainingParams) -> None:
        super().__init__()
        self.model = model
        self.training_params = training

    @property
    def num_layers(self) -> int:
        """How many layers the model has."""
        config: Any = self.model.get_base_model().config
        return int(config.num_hidden_layers)

    def layers_in_groups(self, params: PipelineParams) -> tuple[int, ...]:
        """Numbers of the layers that attend in groups in training, unless they are chosen to attend in full."""
        return layers_in_groups(self.model, sparse_group_size(params), self.num_layers)

    @property
    def num_kv_heads(self) -> int:
        """How many key-value heads a layer has."""
        return num_kv_heads_of(self.model.get_base_model().config)

    def forward(self, batch: MicroBatch, token_weights: TokenWeights | None = None) -> torch.Tensor | LossSums:
        """The micro batch's summed loss, in the training's precision; `LossSums` with weights for its targets."""
        training, device = self.training_params, batch.input_ids.device
        if token_weights is None:
            with autocast(training, device):
                return summed_loss(self.model, batch, training.loss_chunk_tokens, training.loss_kernel)
        weigh = shifted_places(token_weights.of_batch(batch.whole or batch, self._token_losses), batch.part)
        with autocast(training, device):
            return weighted_cross_entropy(*_predictions(self.model, batch), training.loss_chunk_tokens, weigh)

    def _token_losses(self, batch: MicroBatch) -> torch.Tensor:
        """[T] with full attention and without gradients; in an autocast of its own, whose casts of weights have no gradients."""
        with evaluating(self.model, sparse=False), autocast(self.training_params, batch.input_ids.device):
            return token_losses(*_predictions(self.model, batch), self.training_params.loss_chunk_tokens)


def autocast(training: TrainingParams, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if training.precision == "bf16" else contextlib.nullcontext()


def group_size_at(step: int, params: PipelineParams) -> int:
    """Group size of S2-Attn at a step. With groups twice as long as a row, S2-Attn is exactly full attention within documents."""
    training, row = params.training, params.row_tokens
    if training.attention == "full" or step >= training.steps - training.full_attention_steps:
        return 2 * row
    return sparse_group_size(params)


def set_group_size(model: torch.nn.Module, group_size: int) -> None:
    """Make every attention layer use groups of `group_size` tokens from now on."""
    for module in model.modules():
        if hasattr(module, "is_causal"):
            config: Any = module.config
            config.s2_group_size = group_size


def set_full_layers(model: torch.nn.Module, layers: tuple[int, ...], heads: tuple[Head, ...] = ()) -> None:
    """Make the attention layers of these numbers, counted from 0, and these key-value heads attend in full from now on, and no others.

    UserError for a model whose attention layers have no numbers.
    """
    for module in model.modules():
        if hasattr(module, "is_causal"):
            if (layers or heads) and getattr(module, "layer_idx", None) is None:
                raise UserError(
                    f"{type(module).__name__} does not know its layer's number: set training.full_attention_layers and "
                    "training.full_attention_heads to none."
                )
            config: Any = module.config
            config.s2_full_layers, config.s2_full_heads = layers, heads


def num_full_layers_of(model: torch.nn.Module) -> float:
    """How much was set to attend in full, in attention layers: a head counts as its share of a layer's."""
    shares = {getattr(m, "layer_idx", None): _full_share(m) for m in model.modules() if hasattr(m, "is_causal")}
    return sum(share for share in shares.values() if share)


def _full_share(module: Any) -> float:
    if is_full_layer(module):
        return 1
    heads = full_heads(module)
    return len(heads) / num_kv_heads_of(module.config) if heads else 0


@contextlib.contextmanager
def evaluating(model: torch.nn.Module, *, sparse: bool) -> Iterator[None]:
    """Evaluation mode without gradients and dropout; with `sparse`, attention layers compute S2-Attn as in training."""
    attention = [module for module in model.modules() if hasattr(module, "is_causal")]
    model.eval()
    try:
        for module in attention:
            measure_sparse(module, sparse)
        with torch.no_grad():
            yield
    finally:
        for module in attention:
            measure_sparse(module, False)
        model.train()
