"""The settings with which `generate()` runs: those of the base, for the release's window.

`max_length` counts prompt and answer together. A base states its own window there, and then a prompt beyond it is an error in
transformers 4 and 5. Where `max_length` is not stated, both allow 20 more tokens but never more than `max_position_embeddings`,
which stays the old window in releases with linear or dynamic scaling. `max_new_tokens` counts the answer alone and stays.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.publish.checks import ProblemFound
from tasks.publish.portable import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SETTINGS = "generation_config.json"
_NEW_TOKENS = 2


def write_generation_settings(directory: Path, target_length: int, max_position_embeddings: int) -> None:
    """Change `generation_config.json`, and the settings for single tasks in `config.json`, so that the whole window can be used.

    `max_position_embeddings` is that of the written config.json.
    """
    path = directory / SETTINGS
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if settings.get("max_length") is not None or max_position_embeddings < target_length:
        settings["max_length"] = target_length
        settings.pop("_from_model_config", None)  # transformers 4 would make them from config.json again
        write_json(path, settings)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    of_tasks = config.get("task_specific_params")
    if isinstance(of_tasks, dict):
        for task in of_tasks.values():
            if isinstance(task, dict) and task.get("max_length") is not None:
                task["max_length"] = target_length
        write_json(directory / "config.json", config)


def check_generation(model: PreTrainedModel, window: int, target_length: int, max_tokens: int) -> str:
    """Let `model` generate two tokens after a prompt beyond the base's window, by its own settings; ProblemFound if it cannot.

    A prompt of more than `max_tokens` takes too long without a GPU: then only the settings are checked.
    """
    import torch

    length = min(window + 8, target_length - _NEW_TOKENS)
    stated = model.generation_config.max_length
    if stated is not None and stated < target_length:
        raise ProblemFound(f"{SETTINGS} states max_length {stated}, below the window of {target_length} tokens")
    if length > max_tokens:
        return f"the settings allow {target_length} tokens; a prompt of {length} tokens is not run here"
    prompt = torch.arange(length, device=model.device)[None] % model.config.vocab_size

    def enough(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(ids),), ids.shape[1] >= length + _NEW_TOKENS, device=ids.device)

    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the default length, which is what is tried here
            generate: Any = model.generate  # its decorators hide its type
            made = generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, num_beams=1, stopping_criteria=[enough]
            )
    except ValueError as error:
        raise ProblemFound(f"generate() refuses a prompt of {length} tokens: {' '.join(str(error).split())}") from error
    if made.shape[1] <= length:
        raise ProblemFound(f"generate() adds nothing to a prompt of {length} tokens")
    return f"generates after a prompt of {length} tokens; the base's window is {window}"
