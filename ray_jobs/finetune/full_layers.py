"""Which layers attend in full while the others attend in groups.

A layer in full costs what full attention costs; the others stay sparse. What matters is which layers those are: the layers that
copy from far away must keep their reach (`ray_jobs.finetune.training.layer_probe` finds them).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams

AUTO_SHARE = 4  # auto keeps one layer in so many in full
FULL_LAYERS_FILE = "full_attention_layers.json"  # in a checkpoint


@dataclass(frozen=True)
class FullLayers:
    """The layers in full, numbered from 0; after a probe also every layer's score, and the loss to which the scores are added.

    A score is how much the loss of text copied from far away rises with that one layer in groups, in nats a token.
    """

    layers: tuple[int, ...]
    scores: tuple[float, ...] = ()
    loss: float | None = None

    def describe(self) -> str:
        """One line for the log."""
        names = ", ".join(map(str, self.layers))
        found = "; ".join(f"{layer}: {score:+.3f}" for layer, score in ((i, self.scores[i]) for i in ranked(self.scores)))
        by_probe = f", chosen by a probe; loss of copied text with one layer in groups, nats a token: {found}" if found else ""
        return f"full attention in layer {names}, groups in the others{by_probe}"


def ranked(scores: tuple[float, ...]) -> list[int]:
    """The layers, the one with the highest score first."""
    return sorted(range(len(scores)), key=lambda layer: (-scores[layer], layer))


def write_full_layers(directory: Path, chosen: FullLayers) -> None:
    """Keep the choice in a checkpoint's folder; nothing is written where no layer was chosen."""
    if chosen.layers:
        (directory / FULL_LAYERS_FILE).write_text(json.dumps(asdict(chosen)) + "\n")


def read_full_layers(directory: Path) -> FullLayers | None:
    """The choice that a checkpoint holds; None if it holds none."""
    path = directory / FULL_LAYERS_FILE
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    return FullLayers(tuple(kept["layers"]), tuple(kept["scores"]), kept["loss"])


def num_full_layers(training: TrainingParams, num_layers: int) -> int:
    """How many of a model's layers attend in full; it is known before the probe of `auto` has run."""
    if training.probes_layers:
        return auto_count(num_layers)
    return len(stated_full_layers(training, num_layers))


def auto_count(num_layers: int) -> int:
    """How many layers `auto` keeps in full: a quarter, at least one."""
    return max(1, num_layers // AUTO_SHARE)


def stated_full_layers(training: TrainingParams, num_layers: int) -> tuple[int, ...]:
    """Numbers from 0 of the layers in full by list or by `full_attention_every`; none for `auto` and without S2-Attn.

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


def check_full_layers(training: TrainingParams, config: Any) -> None:
    """UserError if the parameters name layers that a model with this text `config` does not have."""
    stated_full_layers(training, int(config.num_hidden_layers))
