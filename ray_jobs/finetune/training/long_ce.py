"""LongCE (arXiv 2410.23771): a target counts more where the model predicts it better with its whole context than with a short one.

    weight = min(p(target | whole context) / p(target | short context), max_weight)        without gradients

The short context of a target is what precedes it in a window of K tokens that starts at position 0. Windows overlap by half, and
each is read for its second half only, so a short context has between K/2 and K tokens. Targets with less than K tokens of left
context have no shorter one to compare with, and weight 1.

    document of 20 tokens, K = 8      windows [4,12) [8,16) [12,20), read for the targets 8..11, 12..15, 16..19

So a document of n tokens costs a second forward pass of about 2 (n - K) tokens, without gradients, with full attention in each
window. It is made in two parts, each of at most as many tokens as the row, so its memory is below that of training. The whole
context is seen as training sees it, with S2-Attn.
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


def short_windows(lengths: np.ndarray, window: int) -> tuple[ShortWindows, ShortWindows]:
    """The windows of `window` tokens over a row with documents of these lengths, int [num_documents]. A place predicts the next one.

    Neighbours overlap, so every second window is in another of the two sets, neither of which has more tokens than the row.
    """
    stride = (window + 1) // 2
    found: tuple[list[tuple[int, int, np.ndarray]], ...] = ([], [])
    document = 0
    for length in np.asarray(lengths, np.int64).tolist():
        number, start = 0, stride  # of the window; places count from the document's start
        first = window  # the first target that it scores
        while first < length:
            end = min(start + window, length)
            found[number % 2].append((document + start, document + end, document + np.arange(first, end)))
            number, start, first = number + 1, start + stride, end
        document += length
    return _joined_windows(found[0]), _joined_windows(found[1])


def _joined_windows(windows: list[tuple[int, int, np.ndarray]]) -> ShortWindows:
    places, inside, joined = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for start, end, targets in windows:
        places.append(targets - 1)
        inside.append(joined + targets - start - 1)
        joined += end - start
    ranges = np.array([(start, end) for start, end, _ in windows], np.int64).reshape(-1, 2)
    return ShortWindows(ranges, np.concatenate(places), np.concatenate(inside))


@dataclass(frozen=True)
class LongCEWeights:
    """The weights, with short contexts of at most `window` tokens.

    With `always`, both parts of the second pass are made even if no target needs them, because under FSDP all ranks must make the
    same passes.
    """

    window: int
    max_weight: float = _MAX_WEIGHT
    always: bool = False
    mean_weight: float = 1.0  # the paper divides by the number of targets, whatever the weights are

    def of_batch(self, batch: MicroBatch, token_losses: TokenLosses) -> Weigh:
        starts = document_starts(batch.position_ids).cpu().numpy()
        lengths, device = np.diff(np.append(np.flatnonzero(starts), len(starts))), batch.input_ids.device
        short = torch.full(batch.input_ids.shape[1:], math.nan, dtype=torch.float64, device=device)
        for windows in short_windows(lengths, self.window):
            if len(windows.places) or self.always:
                losses = token_losses(_joined(batch, windows)).to(short.dtype)
                scored = torch.from_numpy(windows.places_in_windows).to(device)
                short[torch.from_numpy(windows.places).to(device)] = losses[scored]

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
