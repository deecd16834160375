"""Token sequences with common beginnings: forward passes that compute each beginning once, with one KV cache.

The sequences are visited in lexicographic order. There, each has its longest common beginning with the one before it, so
one cache that is cropped to that beginning and filled up again computes every node of the tree of beginnings (the trie)
exactly once, and never holds more than the longest sequence:

    hay hay hay hay question          all computed
    hay hay hay needle hay question   the first three pieces are cached
    hay needle hay hay question       the first is

Keys are cached after rotation, so this is right only where a token's rotation and its visible context do not depend on
what comes later: see `can_share`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# RoPE variants of transformers whose frequencies depend on the length of the whole sequence.
_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope", "su"})
# A run of sequences shares its beginnings where this share of its tokens need not be computed; otherwise batches are
# about as fast, and faster on a GPU.
MIN_SAVED = 0.2
# Elements of an attention mask for tokens behind cached ones: more are computed in pieces. 64 MB as booleans.
MAX_MASK = 64 * 1024 * 1024


@dataclass(frozen=True)
class Visit:
    """`num_cached` first tokens of sequence `index` are in the cache when it is computed; the visit before left them."""

    index: int
    num_cached: int


def can_share(model: Any) -> bool:
    """Whether keys and values of a beginning are right for every continuation, and a cache of them can be cropped.

    Not so for dynamic NTK and longrope, whose rotations depend on the length of the whole; for sliding-window, chunked
    and recurrent layers, whose caches forget; and for anything that is not a model of transformers.
    """
    from transformers import DynamicCache, PreTrainedModel
    from transformers.cache_utils import DynamicLayer

    if not isinstance(model, PreTrainedModel) or model.config.is_encoder_decoder:
        return False
    config = model.config.get_text_config()
    if _rope_types(getattr(config, "rope_parameters", None)) & _LENGTH_DEPENDENT_ROPE:
        return False
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return False
    layers = DynamicCache(config=model.config).layers
    return len(layers) == config.num_hidden_layers and all(type(layer) is DynamicLayer for layer in layers)


@torch.inference_mode()
def forget_lengths(model: Any) -> None:
    """Make dynamic RoPE forget the sequences before, so that each result is what the model gives when it is fresh.

    It keeps the frequencies of the longest sequence it has seen while sequences are not shorter than the base's window; one
    that is shorter resets it.
    """
    if "dynamic" in _rope_types(getattr(model.config.get_text_config(), "rope_parameters", None)):
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)


def _rope_types(parameters: Any) -> set[str]:
    """Every RoPE type named in `parameters`, which some models keep one a kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    found = {str(parameters[key]) for key in ("rope_type", "type") if key in parameters}
    return found.union(*(_rope_types(value) for value in parameters.values()))


def order_by_prefix(sequences: Sequence[np.ndarray], num_needed: Sequence[int]) -> list[Visit]:
    """Visits of all sequences in lexicographic order.

    Args:
        sequences: token ids, each at least one.
        num_needed: of each sequence, how many of its last tokens must be computed even where they are cached, since
            their logits are wanted; at least 1.
    """
    keys = [np.asarray(tokens, ">u4").tobytes() for tokens in sequences]
    order = sorted(range(len(sequences)), key=keys.__getitem__)
    visits = []
    before: np.ndarray = np.empty(0, np.int32)
    num_held = 0  # tokens of `before` that are in the cache
    for index in order:
        tokens = sequences[index]
        common = min(common_prefix(before, tokens), num_held, len(tokens) - num_needed[index])
        visits.append(Visit(index, common))
        before, num_held = tokens, len(tokens)
    return visits


def common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    """How many tokens the two have in common from the start."""
    num = min(len(first), len(second))
    differs = first[:num] != second[:num]
    return int(differs.argmax()) if differs.any() else num


def runs_worth_sharing(visits: Sequence[Visit], lengths: Sequence[int]) -> tuple[list[list[Visit]], list[int]]:
    """Runs of visits that share enough to be computed one after another, and the sequences that are better batched.

    A visit that finds less than MIN_SAVED of its tokens in the cache starts a new run; a run that saves less than
    MIN_SAVED of its tokens is dropped.
    """
    runs: list[list[Visit]] = []
    for visit in visits:
        if runs and visit.num_cached >= MIN_SAVED * lengths[visit.index]:
            runs[-1].append(visit)
        else:
            runs.append([Visit(visit.index, 0)])
    worth, alone = [], []
    for run in runs:
        saved, total = sum(v.num_cached for v in run), sum(lengths[v.index] for v in run)
        if saved >= MIN_SAVED * total:
            worth.append(run)
        else:
            alone += [v.index for v in run]
    return worth, alone


class PrefixCache:
    """The keys and values of one sequence; the next sequence keeps those of the common beginning."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._limits_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._num_cached = 0

    def logits(self, tokens: np.ndarray, num_cached: int, num_logits: int) -> torch.Tensor:
        """Logits [num_logits, V] after each of the last `num_logits` of `tokens`, the first `num_cached` being cached.

        Afterwards all `tokens` are cached. 0 <= num_cached <= len(tokens) - num_logits, and the tokens given last began
        with the same `num_cached`.
        """
        if not 0 <= num_cached <= min(self._num_cached, len(tokens) - num_logits):
            raise ValueError(f"{num_cached} tokens cannot be taken from the cache")
        self._cache.crop(num_cached - self._num_cached)
        self._num_cached = num_cached
        first_wanted = len(tokens) - num_logits
        pieces = []
        while self._num_cached < len(tokens):
            start = self._num_cached
            end = len(tokens) if start == 0 else min(len(tokens), start + max(1, MAX_MASK // len(tokens)))
            logits_KV = self._forward(tokens[start:end], max(1, end - max(start, first_wanted)))
            if end > first_wanted:
                pieces.append(logits_KV)
            self._num_cached = end
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _forward(self, tokens: np.ndarray, keep: int) -> torch.Tensor:
        ids_BL = torch.from_numpy(tokens.astype(np.int64))[None].to(self._model.device)
        limit = {"logits_to_keep": keep} if self._limits_logits else {}
        logits: torch.Tensor = self._model(input_ids=ids_BL, past_key_values=self._cache, use_cache=True, **limit).logits
        return logits[0, -keep:]
