"""The tokenizer's chat template, split into what stands before and after a user's message."""

from __future__ import annotations

from typing import Any

import numpy as np

_MARK = "ropeway-user-message"


def chat_frame(tokenizer: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Tokens before a user's message, and those after it up to where the assistant's answer begins; None without a template.

    BOS is among the first ones where the template writes it.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    message = [{"role": "user", "content": _MARK}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before, _, after = text.partition(_MARK)
    ids = [tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"] for part in (before, after)]
    return np.asarray(ids[0], np.int32), np.asarray(ids[1], np.int32)
