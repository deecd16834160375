"""A base's layers and key-value heads by its config.json alone, without transformers, whose import takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_schemas.params import ModelParams
from tasks.model.base_model import locate


def stated_sizes(model: ModelParams) -> tuple[int | None, int | None]:
    """(layers, key-value heads of a layer) of the text model.

    None for what the file leaves to transformers' defaults, and where no readable file is on this machine: `load_config` finds those.
    UserError for a base folder that is missing.
    """
    file = Path(locate(model)) / "config.json"
    if model.gguf_file or not file.is_file():
        return None, None
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    text = config.get("text_config", config) if isinstance(config, dict) else None
    layers, heads = (
        text.get(name) if isinstance(text, dict) else None for name in ("num_hidden_layers", "num_key_value_heads")
    )
    return layers if type(layers) is int else None, heads if type(heads) is int else None
