"""Offloaded layer inputs: the same losses and gradients, and each is on its way back while the layer after it is recomputed."""

from typing import Any

import pytest
import torch

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.attention import register_s2_attention
from ray_jobs.finetune.training import offloading
from ray_jobs.finetune.training.offloading import OnTheSpot, offload_layer_inputs
from tests.ray_jobs.finetune.training.test_fast_layers import ROWS, losses_and_gradients
from tests.tiny_models import tiny_model


class Noted(OnTheSpot):
    """Numbers what is copied away, and notes when it is copied back and waited for."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self._numbers: dict[int, int] = {}

    def away(self, tensor: torch.Tensor) -> torch.Tensor:
        kept = super().away(tensor)
        self._numbers[id(kept)] = len(self._numbers)
        self.kept = [*getattr(self, "kept", []), kept]  # so that no id is used twice
        self.events.append(("away", self._numbers[id(kept)]))
        return kept

    def back(self, kept: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, Any]:
        self.events.append(("back", self._numbers[id(kept)]))
        return super().back(kept, device)[0], self._numbers[id(kept)]

    def wait(self, tensor: torch.Tensor, event: Any) -> None:
        self.events.append(("wait", event))


def test_inputs_come_back_one_layer_ahead_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloading, "_FEWEST_BYTES", 1024)
    training, copies = TrainingParams(precision="fp32"), Noted()
    plain = losses_and_gradients(training, ROWS, lambda model: None)
    moved = losses_and_gradients(training, ROWS, lambda model: offload_layer_inputs(model, copies))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(moved, plain, strict=True))
    away = [number for what, number in copies.events if what == "away"]
    waited = [number for what, number in copies.events if what == "wait"]
    assert sorted(waited) == away
    assert len(away) >= 2 * len(ROWS)
    for number in waited:  # copied back once, before it is waited for
        back = copies.events.index(("back", number))
        assert copies.events.count(("back", number)) == 1
        assert back < copies.events.index(("wait", number))
        later = number + 1
        if ("wait", later) in copies.events and copies.events.index(("wait", later)) < copies.events.index(("wait", number)):
            assert back == copies.events.index(("wait", later)) + 1  # as soon as the layer after it has begun


def test_without_recomputed_layers_nothing_can_be_moved() -> None:
    register_s2_attention()
    with pytest.raises(UserError, match="needs recomputed layers"):
        offload_layer_inputs(tiny_model("llama"), Noted())
