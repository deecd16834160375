"""What cannot be asked in a way counts against the way; what fails for another reason ends the run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import ChunkingParams
from tasks.advise.answering import Answering
from tasks.advise.calls import Call, Reply
from tasks.advise.prompting import Prompting
from tasks.advise.retrieval import Passages
from tests.tasks.advise.rows_example import notes

DOCUMENT = "The valley is deep and the old bridge is quiet today.\n" * 12


class _Notes:
    """Writes notes of one length; fails at the call of that number."""

    def __init__(self, note: str, fails_at: int | None = None) -> None:
        self._note, self._fails_at, self._asked = note, fails_at, 0

    def ask_all(self, calls: Sequence[Call]) -> list[Reply]:
        self._asked += 1
        if self._asked == self._fails_at:
            raise UserError("The base model cannot be loaded.")
        return [Reply(self._note, 1, 0.0) for _ in calls]


def test_an_error_of_the_model_is_no_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    def ask(model: _Notes) -> str:
        answering = Answering(
            model, Prompting(tokenizer, None, 8, 16), Passages(tokenizer, ChunkingParams(segmenter="fast"), None), False
        )
        return answering.answer(notes(), DOCUMENT, "What is deep?", "the valley").why_not

    assert ask(_Notes("The valley.")) == ""
    assert "notes cannot be joined: No two of" in ask(_Notes("The valley is deep. " * 16))
    for call in (1, 2):  # the notes on the parts, and the joined ones
        with pytest.raises(UserError, match=r"^The base model cannot be loaded\.$"):
            ask(_Notes("The valley.", fails_at=call))
