"""The small model of a proof: random weights that make every path of the attention visible, and its two ways to attend."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from data_schemas.errors import UserError
from ray_jobs.finetune.attention import s2_attention_forward, s2_mask
from ray_jobs.finetune.hybrids import keep_documents_apart
from ray_jobs.finetune.proof.shrink import VOCABULARY
from ray_jobs.finetune.training.objective import set_group_size
from tasks.model.quiet import quiet_transformers

PROOF_ATTENTION = "ropeway_proof"
OWN_ATTENTION = "eager"  # transformers' plainest code of a model, with masks written out
_MARK = "_ropeway_proof"
_FIRST_TOKEN = 3  # behind the special ones


class Calls:
    """The layers that called Ropeway's attention, and those of them that got the very positions that `logits` gave to the model."""

    layers: ClassVar[set[int]] = set()
    marked: ClassVar[set[int]] = set()


def build(config: Any) -> Any:
    """The model of a small `config` in training mode, with Ropeway's attention. Raises whatever transformers raises."""
    from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        Calls.layers.add(id(module))
        if attention_mask is not None:
            raise UserError("its layers make attention masks of their own, which S2-Attn does not compute")
        if options.get("position_ids") is None:
            raise UserError(
                "its layers do not pass position_ids to the attention function, so packed documents would see each other"
            )
        if hasattr(options["position_ids"], _MARK):
            Calls.marked.add(id(module))
        return s2_attention_forward(module, query, key, value, attention_mask, **options)

    AttentionInterface.register(PROOF_ATTENTION, attend)
    AttentionMaskInterface.register(PROOF_ATTENTION, s2_mask)
    Calls.layers.clear()
    Calls.marked.clear()
    torch.manual_seed(0)
    with quiet_transformers():
        model: Any = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), attn_implementation=PROOF_ATTENTION, dtype=torch.float32, trust_remote_code=False
        )
    make_visible(model)
    keep_documents_apart(model)
    return model.train()


def make_visible(model: torch.nn.Module) -> None:
    """Weights large enough that each input moves each output that it may move; also those that begin at zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            elif parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn_like(parameter))


def tokens(lengths: Sequence[int], seed: int = 0) -> torch.Tensor:
    """[1, T] random ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(_FIRST_TOKEN, VOCABULARY, (1, sum(lengths)), generator=generator)


def positions(lengths: Sequence[int]) -> torch.Tensor:
    """[1, T] positions of documents of these lengths in one row."""
    return torch.cat([torch.arange(length) for length in lengths])[None]


def logits(model: Any, ids: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """[T, V] of a row of documents, without gradients."""
    marked = positions(lengths)
    setattr(marked, _MARK, True)
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, position_ids=marked, use_cache=False).logits[0].float()
    return found


@contextmanager
def groups_of(model: Any, group_size: int) -> Iterator[None]:
    """Attention in groups of so many tokens."""
    set_group_size(model, group_size)
    yield


@contextmanager
def attention(model: Any, name: str) -> Iterator[None]:
    """Another attention function, for the time of the block."""
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(PROOF_ATTENTION)
