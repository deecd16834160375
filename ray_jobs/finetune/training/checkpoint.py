"""What a run needs to continue exactly: trained weights, optimizer moments and the step.

Learning rate, reading order and random state are pure functions of the step, so they are not stored. Tensors are stored whole, even
if they were sharded, so a run can continue with another number of workers or another kind of parallelism. There is no pickle.

A checkpoint is a folder. Its cursor, a JSON file, is written last and names every other file with its size, so a folder that was
copied or written in part is known at sight, whichever file is missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from data_schemas.errors import UserError
from data_schemas.storage import write_atomically
from ray_jobs.finetune.training.averaging import WeightAverage
from ray_jobs.finetune.training.distributed import like, whole
from ray_jobs.finetune.training.lora import trainable
from tasks.model.optional_imports import load_peft

if TYPE_CHECKING:
    from peft import PeftModel

STATE_FILE, CURSOR_FILE, ADAPTER_FILE = "state.safetensors", "cursor.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Cursor:
    """The position of a run: `step` optimizer steps are done."""

    step: int


def save_checkpoint(
    directory: Path | None,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    cursor: Cursor,
    average: WeightAverage | None = None,
) -> None:
    """Write the state into `directory`, and last the cursor, which names all files that are there by then.

    Called on every rank; only rank 0 has a directory, which exists.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trainable(model):
        state = optimizer.state.get(parameter, {})
        parts = {f"weight.{name}": parameter.detach()}
        for key, value in state.items():
            parts[f"optimizer.{key}.{name}" if torch.is_tensor(value) else f"number.{key}.{name}"] = torch.as_tensor(value)
        if average is not None and name in average.means:
            parts[f"average.{name}"] = average.means[name]
        for key, value in parts.items():
            full = whole(value.detach())
            if directory is not None:
                tensors[key] = full.cpu().contiguous()
    if directory is not None:
        save_file(tensors, directory / STATE_FILE)
        sizes = {str(f.relative_to(directory)): f.stat().st_size for f in sorted(directory.rglob("*")) if f.is_file()}
        write_atomically(directory / CURSOR_FILE, json.dumps({"step": cursor.step, "files": sizes}))


def last_complete(folder: Path) -> Path | None:
    """The latest checkpoint below `folder` that is complete (a kill or a full disk leaves incomplete ones), or None."""
    steps = {path: step for path in folder.glob("checkpoint_*") if (step := complete_step(path)) is not None}
    return max(steps, key=lambda path: steps[path], default=None)


def first_complete(*directories: Path | None) -> Path | None:
    """The first of these checkpoints that exists and is complete, or None."""
    return next((one for one in directories if one is not None and complete_step(one) is not None), None)


def complete_step(directory: Path) -> int | None:
    """The step of a complete checkpoint; None if a file is missing, cut off or unreadable."""
    try:
        cursor = json.loads((directory / CURSOR_FILE).read_text())
        # Before November 2026 a cursor did not name the files.
        sizes = {name: size for name, size in cursor.get("files", {}).items() if name != CURSOR_FILE}
        if any((directory / name).stat().st_size != size for name, size in sizes.items()):
            return None
        for tensors in (directory / STATE_FILE, *directory.rglob("*.safetensors")):
            with safe_open(tensors, framework="pt"):  # fails for a file that is shorter than its header says
                pass
        return int(cursor["step"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError):
        return None


def load_checkpoint(
    directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None
) -> Cursor:
    """Put the saved state into `model`, `optimizer` and `average`, in place. KeyError if it is of another model."""
    with safe_open(directory / STATE_FILE, framework="pt") as saved:
        names = set(saved.keys())
        for name, parameter in trainable(model):
            if f"weight.{name}" not in names:
                raise KeyError(f"{directory} holds no weight {name}")
            with torch.no_grad():
                parameter.copy_(like(saved.get_tensor(f"weight.{name}"), parameter))
            if average is not None and f"average.{name}" in names:
                average.means[name] = like(saved.get_tensor(f"average.{name}"), parameter).clone()
            state = {}
            for key in sorted(names):
                kind, _, rest = key.partition(".")
                field, _, owner = rest.partition(".")
                if owner == name and kind in ("optimizer", "number"):
                    value = saved.get_tensor(key)
                    state[field] = value.item() if kind == "number" else _placed(value, parameter)
            optimizer.state[parameter] = state
    return Cursor(step=json.loads((directory / CURSOR_FILE).read_text())["step"])


def _placed(value: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
    """Moments are sharded like their weight. A step count is whole, on the weight's device (where fused AdamW keeps it)."""
    return like(value, parameter).clone() if value.shape == parameter.shape else value.to(parameter.device).clone()


def load_adapter(directory: Path, model: PeftModel) -> None:
    """Put the adapter that `save_adapter` wrote into `model`, in place, before it is sharded.

    UserError if it is not one of exactly this model's trained weights.
    """
    load_peft()
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(directory / ADAPTER_FILE)
    expected = get_peft_model_state_dict(model, state_dict=_trained(model))
    # A tied weight may be saved under one of its names.
    ours = {name: tuple(value.shape) for name, value in expected.items()}
    differs = [name for name, value in saved.items() if ours.get(name) != tuple(value.shape)] or sorted(
        ours.keys() - saved.keys()
    )
    if differs:
        raise UserError(
            f"The checkpoint to go on from, {directory.parent.name}, was trained with other weights than these (such as {differs[0]}): "
            "let training.lora_rank, lora_targets, train_norms and train_embeddings be the same in both."
        )
    set_peft_model_state_dict(model, saved)


def save_adapter(directory: Path | None, model: PeftModel) -> None:
    """LoRA, norms and embeddings in peft's format. Called on every rank; only rank 0 has a directory."""
    trained = _trained(model)
    if directory is not None:
        model.save_pretrained(str(directory), state_dict=trained)


def _trained(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: whole(p.detach()) for name, p in model.state_dict(keep_vars=True).items() if p.requires_grad}
