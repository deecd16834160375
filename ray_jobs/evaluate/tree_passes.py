"""Forward passes over a tree of token sequences: each common beginning once, each pass without padding or mask.

In the last layer, only keys and values are computed for tokens whose logits nobody wants.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ray_jobs.evaluate.logprobs import MAX_LOGITS, TargetScores, target_scores
from ray_jobs.evaluate.prefixes import Tree, passes_of, tree_of
from ray_jobs.evaluate.tree_attention import Block, KeyValue, Layout, attending, configs_of

# RoPE variants of transformers whose frequencies depend on the length of the whole sequence.
_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope", "su"})
# Tokens of one pass on a CPU: more do not fit into its caches, and take 10 % longer (measured with the demo's base).
CPU_TOKENS = 2048
# Parts of a layer that treat each token by itself, as most architectures name them.
_ROW_BY_ROW = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
_shares: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

Pieces = tuple[tuple[int, int], ...]


def can_share(model: Any) -> bool:
    """Whether keys and values of a beginning are right for every continuation, and the model gives the same logits in a tree.

    The first is not so for dynamic NTK and longrope, whose rotations depend on the length of the whole; for sliding-window,
    chunked and recurrent layers, which forget; and for anything that is not a model of transformers. The second is tried once.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return False
    if model not in _shares:
        _shares[model] = _is_plain(model) and _agrees(model)
    return _shares[model]


def _is_plain(model: Any) -> bool:
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    if model.config.is_encoder_decoder or not {"position_ids", "logits_to_keep"} <= {
        *inspect.signature(model.forward).parameters
    }:
        return False
    config = model.config.get_text_config()
    if rope_types(getattr(config, "rope_parameters", None)) & _LENGTH_DEPENDENT_ROPE:
        return False
    layers = DynamicCache(config=model.config).layers
    return len(layers) == config.num_hidden_layers and all(type(layer) is DynamicLayer for layer in layers)


@torch.inference_mode()
def _agrees(model: Any) -> bool:
    """Two sequences in a tree, against each in a forward pass of its own. False where the model has another attention."""
    ids = np.random.default_rng(0).integers(0, model.config.get_text_config().vocab_size, (2, 40)).astype(np.int32)
    ids[1, :20] = ids[0, :20]
    passes = Passes(model)
    try:
        found = torch.cat(
            passes.logits([Rows(0, ids[0], 0, (), np.array([9, 39])), Rows(1, ids[1, 20:], 20, ((0, 20),), np.array([19]))])
        )
    except (RuntimeError, TypeError, AttributeError, KeyError, IndexError, ValueError):
        return False
    whole = model(input_ids=torch.from_numpy(ids.astype(np.int64)).to(model.device), use_cache=False).logits
    wanted = whole[[0, 0, 1], [9, 39, 39]]
    tolerance = 1e-3 if wanted.dtype == torch.float32 else 3e-2
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= tolerance * wanted.abs().max())


def rope_types(parameters: Any) -> set[str]:
    """Every RoPE type named in `parameters`, which some models keep one a kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    found = {str(parameters[key]) for key in ("rope_type", "type") if key in parameters}
    return found.union(*(rope_types(value) for value in parameters.values()))


@dataclass(frozen=True)
class Rows:
    """A branch in a forward pass: `tokens` int32 from position `start`, behind the pieces `sees` of other branches.

    Those are branches of the same pass before it, or kept ones. `wanted`: ascending places in `tokens` whose logits are asked for.
    `keep`: of how many of its tokens keys and values are kept.
    """

    number: int
    tokens: np.ndarray
    start: int
    sees: Pieces
    wanted: np.ndarray
    keep: int = 0


class Passes:
    """Runs forward passes over branches, and keeps the keys and values that later ones need."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._num_layers = int(model.config.get_text_config().num_hidden_layers)
        self._configs = configs_of(model)
        self._kept: dict[tuple[int, int], KeyValue] = {}

    @torch.inference_mode()
    def logits(self, branches: Sequence[Rows]) -> list[torch.Tensor]:
        """The logits [wanted, V] of each branch."""
        firsts = np.cumsum([0, *(len(branch.tokens) for branch in branches)]).tolist()
        place = {branch.number: first for branch, first in zip(branches, firsts, strict=False)}

        def seen(sees: Pieces) -> tuple[tuple[int | None, int, int], ...]:
            return tuple((None, place[n], place[n] + count) if n in place else (n, 0, count) for n, count in sees)

        blocks, last_blocks = [], []
        for branch, first, end in zip(branches, firsts, firsts[1:], strict=False):
            blocks.append(Block(first, end, seen(branch.sees)))
            for begin, stop in _stretches(branch.wanted):
                own = ((None, first, first + begin),) if begin else ()
                last_blocks.append(Block(first + begin, first + stop, (*seen(branch.sees), *own)))
        keeps = [(b.number, first, first + b.keep) for b, first in zip(branches, firsts, strict=False) if b.keep]
        layout = Layout(blocks, last_blocks, self._num_layers - 1, keeps, self._kept)
        device = self._model.device
        ids = torch.from_numpy(np.concatenate([b.tokens for b in branches]).astype(np.int64)).to(device)
        positions = torch.from_numpy(np.concatenate([np.arange(b.start, b.start + len(b.tokens)) for b in branches])).to(device)
        wanted = torch.from_numpy(np.concatenate([b.wanted + first for b, first in zip(branches, firsts, strict=False)])).to(
            device
        )
        with attending(self._configs, layout), _last_layer_only_for(self._model, wanted, len(wanted) == len(ids)):
            logits = self._model(
                input_ids=ids[None], position_ids=positions[None], use_cache=False, logits_to_keep=wanted
            ).logits[0]
        return list(logits.split([len(branch.wanted) for branch in branches]))

    def forget(self, number: int) -> None:
        for layer in range(self._num_layers):
            self._kept.pop((layer, number), None)

    def append(self, number: int, other: int, count: int) -> None:
        """Put the first `count` tokens kept under `other` behind those under `number`, and forget `other`."""
        for layer in range(self._num_layers):
            added = self._kept.pop((layer, other))
            before = self._kept.get((layer, number))
            key, value = (torch.cat([*([before[i]] if before else []), added[i][:, :, :count]], dim=2) for i in (0, 1))
            self._kept[layer, number] = key, value


def _stretches(places: np.ndarray) -> list[tuple[int, int]]:
    """(first, last + 1) of each run of neighbouring places."""
    if not len(places):
        return []
    cuts = np.flatnonzero(np.diff(places) > 1)
    starts, ends = places[[0, *(cuts + 1)]], places[[*cuts, len(places) - 1]] + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@contextmanager
def _last_layer_only_for(model: Any, rows: torch.Tensor, wants_all: bool) -> Iterator[None]:
    """Within this, the last layer's queries, attention output and feed-forward are computed for these rows; the others get zeros."""
    layers = getattr(model.base_model, "layers", None)
    named = dict(layers[-1].named_modules()) if layers is not None and len(layers) and not wants_all else {}
    num_tokens: list[int] = []

    def only_rows(module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        num_tokens.append(inputs[0].shape[1])
        return (inputs[0][:, rows],)

    def put_back(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        whole = output.new_zeros(1, num_tokens.pop(), output.shape[-1])
        whole[:, rows] = output
        return whole

    hooks = [
        hook
        for name in _ROW_BY_ROW
        if name in named
        for hook in (named[name].register_forward_pre_hook(only_rows), named[name].register_forward_hook(put_back))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class TreeScores:
    """Scores of the last tokens of sequences, by passes over their tree.

    Args:
        sequences: int32 token ids.
        targets: of each sequence, the tokens that its last positions should predict: as many as positions are scored, at least 1.
        keep_all: keep keys and values of all branches, for sequences that go on. Else those that a later pass needs.
    """

    def __init__(
        self,
        model: Any,
        sequences: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        batch_tokens: int,
        keep_all: bool = False,
    ) -> None:
        self.tree, self.passes = tree_of(sequences), Passes(model)
        self._sequences, self._targets, self._keep_all = sequences, targets, keep_all
        self._wanted, self._parts = _wanted_places(self.tree, sequences, targets)
        vocabulary = model.config.get_text_config().vocab_size
        most_tokens = min(batch_tokens, CPU_TOKENS) if model.device.type == "cpu" else batch_tokens
        self._plan = passes_of(self.tree, [len(w) for w in self._wanted], most_tokens, MAX_LOGITS // vocabulary)

    def __iter__(self) -> Iterator[tuple[int, TargetScores]]:
        """(index of the sequence, its scores) in the order in which they are done."""
        pass_of = {branch: number for number, branches in enumerate(self._plan) for branch in branches}
        keep, last_use = self._kept_lengths(pass_of)
        done: list[dict[int, TargetScores]] = [{} for _ in self._parts]
        of_branch: dict[int, list[tuple[int, int]]] = {}
        for sequence, parts in enumerate(self._parts):
            for part, (branch, _, _) in enumerate(parts):
                of_branch.setdefault(branch, []).append((sequence, part))
        for number, branches in enumerate(self._plan):
            logits = self.passes.logits([self._rows(branch, keep[branch]) for branch in branches])
            for branch, logits_WV in zip(branches, logits, strict=True):
                for sequence, part in of_branch.get(branch, ()):
                    _, places, targets = self._parts[sequence][part]
                    rows = torch.from_numpy(np.searchsorted(self._wanted[branch], places)).to(logits_WV.device)
                    done[sequence][part] = target_scores(logits_WV[rows], targets)
                    if len(done[sequence]) == len(self._parts[sequence]):
                        yield sequence, _joined([done[sequence].pop(i) for i in range(len(self._parts[sequence]))])
            for branch in [branch for branch, last in last_use.items() if last == number and not self._keep_all]:
                self.passes.forget(branch)

    def _rows(self, branch: int, keep: int) -> Rows:
        of = self.tree.branches[branch]
        tokens = self._sequences[of.sequence][of.start : of.end]
        return Rows(branch, tokens, of.start, self.tree.above(branch), self._wanted[branch], keep)

    def _kept_lengths(self, pass_of: dict[int, int]) -> tuple[list[int], dict[int, int]]:
        """Of each branch, how many tokens to keep, and of those that are kept, the last pass that needs them."""
        keep, last_use = [0] * len(self.tree.branches), dict[int, int]()
        for number, branch in enumerate(self.tree.branches):
            if self._keep_all:
                keep[number] = branch.end - branch.start
                continue
            for above, count in self.tree.above(number):
                if pass_of[above] != pass_of[number]:
                    keep[above] = max(keep[above], count)
                    last_use[above] = max(last_use.get(above, 0), pass_of[number])
        return keep, last_use


Parts = list[tuple[int, np.ndarray, np.ndarray]]


def _wanted_places(
    tree: Tree, sequences: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[Parts]]:
    """Of each branch, the places whose logits are wanted; of each sequence, its (branch, places, targets) in order."""
    parts: list[Parts] = []
    wanted: list[set[int]] = [set() for _ in tree.branches]
    for index, (tokens, of_sequence) in enumerate(zip(sequences, targets, strict=True)):
        begin = len(tokens) - len(of_sequence)
        found: Parts = []
        for branch, count in tree.pieces(tree.leaves[index], len(tokens)):
            start = tree.branches[branch].start
            places = np.arange(max(0, begin - start), count)
            if len(places):
                first = start + int(places[0]) - begin
                found.append((branch, places, of_sequence[first : first + len(places)]))
                wanted[branch].update(places.tolist())
        parts.append(found)
    return [np.array(sorted(places), np.int64) for places in wanted], parts


def _joined(parts: Sequence[TargetScores]) -> TargetScores:
    return TargetScores(np.concatenate([p.logprobs for p in parts]), np.concatenate([p.greedy_ids for p in parts]))
