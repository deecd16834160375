"""Which layers, or which of their heads, attend in full while the others attend in groups.

A layer in full costs what full attention costs; the others stay sparse. What matters is which layers those are: the layers that
copy from far away must keep their reach (`ray_jobs.finetune.training.layer_probe` finds them). Single key-value heads, with their
query heads, can be chosen instead of whole layers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams

AUTO_SHARE = 4  # auto keeps one layer, or one key-value head, in so many in full
FULL_LAYERS_FILE = "full_attention_layers.json"  # in a checkpoint

Head = tuple[int, int]  # a layer and one of its key-value heads, both from 0


@dataclass(frozen=True)
class FullLayers:
    """The layers in full, numbered from 0, or the heads; after a probe also the scores, and the loss to which they are added.

    `scores` are of every layer, or of every head, layer after layer with `heads_a_layer` of them. A score is how much the loss of
    text copied from far away rises with that one layer or head in groups, in nats a token; None where training has none in groups.
    """

    layers: tuple[int, ...]
    scores: tuple[float | None, ...] = ()
    loss: float | None = None
    heads: tuple[Head, ...] = ()
    heads_a_layer: int = 0

    def describe(self) -> str:
        """One line for the log."""
        is_heads = bool(self.heads)
        chosen = (
            f"key-value head {', '.join(map(_name, self.heads))}" if is_heads else f"layer {', '.join(map(str, self.layers))}"
        )
        if not self.scores:
            return f"full attention in {chosen}, groups in the others"
        names = {i: _name(divmod(i, self.heads_a_layer)) if is_heads else str(i) for i in ranked(self.scores)}
        found = "; ".join(f"{name}: {self.scores[i]:+.3f}" for i, name in names.items())
        what = "head" if is_heads else "layer"
        by_probe = f"chosen by a probe; loss of copied text with one {what} in groups, nats a token: {found}"
        return f"full attention in {chosen}, groups in the others, {by_probe}"

    def recorded(self) -> dict[str, Any]:
        """For a file or a manifest; heads only where they were chosen."""
        kept = asdict(self)
        return kept if self.heads else {name: kept[name] for name in ("layers", "scores", "loss")}


def _name(head: Head) -> str:
    return f"{head[1]} of layer {head[0]}"


def ranked(scores: tuple[float | None, ...]) -> list[int]:
    """The layers or heads that have a score, the one with the highest score first."""
    found = [(-score, number) for number, score in enumerate(scores) if score is not None]
    return [number for _, number in sorted(found)]


def write_full_layers(directory: Path, chosen: FullLayers) -> None:
    """Keep the choice in a checkpoint's folder; nothing is written where nothing was chosen."""
    if chosen.layers or chosen.heads:
        (directory / FULL_LAYERS_FILE).write_text(json.dumps(chosen.recorded()) + "\n")


def read_full_layers(directory: Path) -> FullLayers | None:
    """The choice that a checkpoint holds; None if it holds none."""
    path = directory / FULL_LAYERS_FILE
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    heads = tuple((layer, head) for layer, head in kept.get("heads", ()))
    return FullLayers(tuple(kept["layers"]), tuple(kept["scores"]), kept["loss"], heads, kept.get("heads_a_layer", 0))


def num_full_layers(
    training: TrainingParams, num_layers: int, num_kv_heads: int, in_groups: Collection[int] | None = None
) -> float:
    """How much of a model is chosen to attend in full, in layers: a layer's heads cost the same. It is known before a probe has run.

    `in_groups`: numbers of the layers that attend in groups otherwise (`ray_jobs.finetune.grouped_layers`); None means all.
    """
    can = range(num_layers) if in_groups is None else in_groups
    choice = len(can)
    if training.probes_heads:
        return auto_count(choice * num_kv_heads) / num_kv_heads
    if training.probes_layers:
        return auto_count(choice)
    heads = stated_full_heads(training, num_layers, num_kv_heads)
    return len(heads) / num_kv_heads if heads else len(set(stated_full_layers(training, num_layers)).intersection(can))


def auto_count(number: int) -> int:
    """How many of `number` layers or heads that can be in groups `auto` keeps in full: a quarter, at least one; none of none."""
    return max(1, number // AUTO_SHARE) if number else 0


def stated_full_layers(training: TrainingParams, num_layers: int) -> tuple[int, ...]:
    """Numbers from 0 of the layers in full by list or by `full_attention_every`; none for `auto`, heads and without S2-Attn.

    UserError for layers that a model of `num_layers` does not have.
    """
    if training.attention != "s2":
        return ()
    every = training.full_attention_every
    if every:
        if every > num_layers:
            raise UserError(
                f"training.full_attention_every is {every}, but the model has {num_layers} layers: choose at most {num_layers}."
            )
        return tuple(range(every - 1, num_layers, every))
    if isinstance(training.full_attention_layers, str):
        return ()
    layers = tuple(sorted(set(training.full_attention_layers)))
    if missing := [layer for layer in layers if layer >= num_layers]:
        raise UserError(
            f"training.full_attention_layers names {', '.join(map(str, missing))}, but the model has {num_layers} layers: "
            f"choose from 0 to {num_layers - 1}."
        )
    return layers


def stated_full_heads(training: TrainingParams, num_layers: int, num_kv_heads: int) -> tuple[Head, ...]:
    """The heads in full by list; none for `auto` and without S2-Attn. UserError for heads that the model does not have."""
    if training.attention != "s2" or isinstance(training.full_attention_heads, str):
        return ()
    heads = tuple(sorted(set(training.full_attention_heads)))
    if missing := [list(head) for head in heads if head[0] >= num_layers or head[1] >= num_kv_heads]:
        raise UserError(
            f"training.full_attention_heads names {', '.join(map(str, missing))}, but the model has {num_layers} layers with "
            f"{num_kv_heads} key-value heads each, counted from 0."
        )
    return heads


def num_kv_heads_of(config: Any) -> int:
    """Key-value heads of a layer, from a text configuration of transformers."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def refuse_missing(training: TrainingParams, num_layers: int | None, num_kv_heads: int | None) -> None:
    """UserError for layers and heads in full that a model of these sizes does not have; None is a size that is not known yet."""
    if num_layers is not None:
        stated_full_layers(training, num_layers)
        if num_kv_heads is not None:
            stated_full_heads(training, num_layers, num_kv_heads)


def check_full_layers(training: TrainingParams, config: Any, in_groups: Callable[[], Collection[int]]) -> None:
    """UserError if the parameters name layers or heads that a model with this text `config` does not have, or that are never in groups.

    `in_groups` gives the numbers of the others; it is called where layers or heads are named. Of every k-th layer one is enough.
    """
    num_layers = int(config.num_hidden_layers)
    layers = stated_full_layers(training, num_layers)
    heads = stated_full_heads(training, num_layers, num_kv_heads_of(config))
    stated = sorted({*layers, *(layer for layer, _ in heads)})
    if not stated:
        return
    can = in_groups()
    never = [layer for layer in stated if layer not in can]
    every = training.full_attention_every
    if not never or (every and len(never) < len(stated)):
        return
    named = (
        "full_attention_heads names"
        if heads
        else f"full_attention_every {every} chooses"
        if every
        else "full_attention_layers names"
    )
    which = (
        f"layer {', '.join(map(str, never))}, which training never puts into groups (a short sliding window, or no attention)"
    )
    do = f"choose from {', '.join(map(str, sorted(can)))}" if can else "No layer of this base is ever in groups: leave it out"
    raise UserError(f"training.{named} {which}{': ' if can else '. '}{do}.")
