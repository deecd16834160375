"""Questions and answers as turns of a chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.tokens.chat import around_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class ChatFrame:
    """Token ids before the first user's message, between question and answer, between answer and next question, and at the end."""

    opening: tuple[int, ...]
    to_answer: tuple[int, ...]
    to_question: tuple[int, ...]
    closing: tuple[int, ...]


def chat_frame(tokenizer: PreTrainedTokenizerFast) -> ChatFrame | None:
    """The frame of the tokenizer's chat template; None if it has none, or one that does not write all four messages in turn."""
    if (around := around_messages(tokenizer, 4)) is None:
        return None
    opening, to_answer, to_question, _, closing = around
    return ChatFrame(opening, to_answer, to_question, closing)
