"""Everything a run needs to go on exactly: trained weights, optimizer moments and the step.

Learning rate, reading order and random state are pure functions of the step, so they are not stored. One safetensors file
and one JSON file; no pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ray_jobs.finetune.lora import trainable

STATE_FILE, CURSOR_FILE = "state.safetensors", "cursor.json"


@dataclass(frozen=True)
class Cursor:
    """Where the run stands: `step` optimizer steps are done."""

    step: int


def save_checkpoint(directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, cursor: Cursor) -> None:
    """Write the state of rank 0 into `directory`, which exists."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trainable(model):
        tensors[f"weight.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value.detach() if torch.is_tensor(value) else torch.tensor(value)
    save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, directory / STATE_FILE)
    (directory / CURSOR_FILE).write_text(json.dumps({"step": cursor.step}))


def load_checkpoint(directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Cursor:
    """Put the saved state into `model` and `optimizer`, in place. KeyError if it is another model's."""
    tensors = load_file(directory / STATE_FILE)
    for name, parameter in trainable(model):
        parameter.data.copy_(tensors[f"weight.{name}"])
        prefix = {key.split(".", 2)[1] for key in tensors if key.startswith("optimizer.") and key.split(".", 2)[2] == name}
        optimizer.state[parameter] = {
            # fused AdamW keeps its step count on the weight's device
            key: tensors[f"optimizer.{key}.{name}"].to(parameter.device).clone()
            for key in sorted(prefix)
        }
    return Cursor(step=json.loads((directory / CURSOR_FILE).read_text())["step"])
