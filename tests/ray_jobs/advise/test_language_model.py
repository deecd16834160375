"""How sure a model is of its answer is read from what counts as the answer."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from ray_jobs.advise.language_model import LanguageModel


@pytest.mark.parametrize(
    ("written", "counted"),
    [
        (" 42\nQuestion: And now?", " 42"),
        ("\n 42 bridges", "\n 42 bridges"),
        ("42", "42"),
        ("\n\n42\n", "\n\n42"),
        ("\n", "\n"),
    ],
)
def test_only_the_first_line_is_weighed(tokenizer: PreTrainedTokenizerFast, written: str, counted: str) -> None:
    model = LanguageModel(None, tokenizer, "base", 512)
    ids = np.array(tokenizer(written, add_special_tokens=False).input_ids, np.int32)
    end = np.array([tokenizer.eos_token_id], np.int32)
    for generated in (ids, np.concatenate([ids, end])):
        kept = model._first_line(generated)
        assert len(kept) >= 1
        assert tokenizer.decode(kept) == counted
