"""LongCE (arXiv 2410.23771): a target counts more where the model predicts it better with its whole context than with a short one.

    weight = min(p(target | whole context) / p(target | short context), max_weight)        without gradients

The short context of a target is what precedes it in a window of K tokens that starts at position 0. Windows overlap by half, and
each is read for its second half only, so a short context has between K/2 and K tokens. Targets with less than K tokens of left
context have no shorter one to compare with, and weight 1.

    document of 20 tokens, K = 8      windows [4,12) [8,16) [12,20), read for the targets 8..11, 12..15, 16..19

So a document of n tokens costs a second forward pass of about 2 (n - K) tokens, without gradients, with full attention in each
window. The whole context is seen as training sees it, with S2-Attn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ray_jobs.finetune.segments import document_starts
from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.chunked_loss import Weigh
from ray_jobs.finetune.training.token_weights import TokenLosses

_MAX_WEIGHT = 5.0  # the paper's


@dataclass(frozen=True)
class ShortWindows:
    """Windows as token ranges [W, 2] of a row, and which targets they score: places in the row and in the joined windows, [N]."""

    ranges: np.ndarray
    places: np.ndarray
    places_in_windows: np.ndarray


def short_windows(lengths: np.ndarray, window: int) -> ShortWindows:
    """The windows of `window` tokens over a row with documents of these lengths, int [num_documents]. A place predicts the next one."""
    stride = window // 2
    ranges, places, inside = [], [], []
    document, joined = 0, 0
    for length in np.asarray(lengths, np.int64).tolist():
        start, first = (
            stride,
            window,
        )  # the window's start, and the first target that it scores, from the document's first token
        while first < length:
            end = min(start + window, length)
            ranges.append((document + start, document + end))
            scored = np.arange(first, end)
            places.append(document + scored - 1)
            inside.append(joined + scored - start - 1)
            joined += end - start
            start, first = start + stride, end
        document += length
    nothing = np.empty(0, np.int64)
    return ShortWindows(
        np.array(ranges, np.int64).reshape(-1, 2),
        np.concatenate(places) if places else nothing,
        np.concatenate(inside) if inside else nothing,
    )


@dataclass(frozen=True)
class LongCEWeights:
    """The weights, with short contexts of at most `window` tokens.

    With `always`, the second pass is made even if no target needs it, because under FSDP all ranks must make the same passes.
    """

    window: int
    max_weight: float = _MAX_WEIGHT
    always: bool = False
    mean_weight: float = 1.0  # the paper divides by the number of targets, whatever the weights are

    def of_batch(self, batch: MicroBatch, token_losses: TokenLosses) -> Weigh:
        starts = document_starts(batch.position_ids).cpu().numpy()
        windows = short_windows(np.diff(np.append(np.flatnonzero(starts), len(starts))), self.window)
        short = torch.full(batch.input_ids.shape[1:], math.nan, device=batch.input_ids.device)
        if len(windows.places) or self.always:
            losses = token_losses(_joined(batch, windows))
            short = short.to(losses.dtype)
            short[torch.from_numpy(windows.places).to(short.device)] = losses[
                torch.from_numpy(windows.places_in_windows).to(short.device)
            ]

        def weigh(places: slice, losses: torch.Tensor) -> torch.Tensor:
            gain = (short[places] - losses).clamp(max=math.log(self.max_weight))
            return torch.where(gain.isnan(), 1.0, gain.exp())

        return weigh


def _joined(batch: MicroBatch, windows: ShortWindows) -> MicroBatch:
    """The windows as one packed row whose positions restart at each; the row's first token if there are no windows."""
    ranges = windows.ranges.tolist() or [(0, 1)]
    tokens = np.concatenate([np.arange(start, end) for start, end in ranges])
    positions = np.concatenate([np.arange(end - start) for start, end in ranges])
    device = batch.input_ids.device
    return MicroBatch(batch.input_ids[:, torch.from_numpy(tokens).to(device)], torch.from_numpy(positions)[None].to(device))
