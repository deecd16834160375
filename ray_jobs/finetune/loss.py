"""Next-token loss over long rows without ever holding all logits.

Logits of 128k tokens over a vocabulary of 128k are 67 GB in float32. Here a chunk's logits live only while its own loss, or
its own gradient, is computed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

IGNORED = -100


def next_token_targets(input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
    """[T] targets of a packed row: the next token, ignored at the last token of each document.

    `input_ids` and `position_ids` are [T]; a document's first token is nobody's target.
    """
    targets = torch.full_like(input_ids, IGNORED)
    goes_on = position_ids[1:] == position_ids[:-1] + 1
    targets[:-1] = torch.where(goes_on, input_ids[1:], IGNORED)
    return targets


def summed_cross_entropy(
    head: Callable[[torch.Tensor], torch.Tensor], hidden_TE: torch.Tensor, targets_T: torch.Tensor, chunk_tokens: int
) -> torch.Tensor:
    """Sum (not mean) of -log p(target) in nats, float32, over the targets that are not ignored.

    `head` maps hidden states [t, E] to logits [t, V]. Peak memory holds `chunk_tokens` x V logits.
    """
    total = hidden_TE.new_zeros((), dtype=torch.float32)
    for hidden, targets in zip(hidden_TE.split(chunk_tokens), targets_T.split(chunk_tokens), strict=True):
        if torch.is_grad_enabled():
            total = total + checkpoint(_chunk_loss, head, hidden, targets, use_reentrant=False)
        else:
            total = total + _chunk_loss(head, hidden, targets)
    return total


def _chunk_loss(head: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets, ignore_index=IGNORED, reduction="sum")
