"""From hidden states to logits, as the model itself computes them: some models scale or cap what the output layer gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def output_layer(causal_lm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Maps hidden states [..., E] to logits [..., V]. It is the output layer itself where nothing follows it.

    What may follow: `logit_scale` (Cohere) multiplies, `logits_scaling` (Granite) divides, and `final_logit_softcapping` c
    (Gemma 2) makes c tanh(logit / c) of each logit.
    """
    config = causal_lm.config.get_text_config()
    head: Callable[[torch.Tensor], torch.Tensor] = causal_lm.get_output_embeddings()
    factor, divisor = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    cap = getattr(config, "final_logit_softcapping", None)
    if factor in (None, 1) and divisor in (None, 1) and cap is None:
        return head

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        # The same operations in the same order as the models', so that the last bit is the same.
        found = head(hidden)
        found = found if factor is None else found * factor
        found = found if divisor is None else found / divisor
        return found if cap is None else (found / cap).tanh() * cap

    return logits
