"""A chat template as the tokens between the messages of a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_MARKS = ("ropeway-first-user", "ropeway-first-answer", "ropeway-next-user", "ropeway-next-answer")


@dataclass(frozen=True)
class ChatFrame:
    """Token ids before the first user's message, between question and answer, between answer and next question, and at the end."""

    opening: tuple[int, ...]
    to_answer: tuple[int, ...]
    to_question: tuple[int, ...]
    closing: tuple[int, ...]


def chat_frame(tokenizer: PreTrainedTokenizerFast) -> ChatFrame | None:
    """The frame of the tokenizer's chat template; None if it has none, or one that does not write all four messages in turn."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    roles = ("user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=True)]
    rest = str(tokenizer.apply_chat_template(messages, tokenize=False))
    frames = []
    for mark in _MARKS:
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        frames.append(before)
    opening, to_answer, to_question, _ = frames
    return ChatFrame(*(_ids(text, tokenizer) for text in (opening, to_answer, to_question, rest)))


def _ids(text: str, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
