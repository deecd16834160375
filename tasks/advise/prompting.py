"""Questions and texts as tokens of a call, plain or in the base's chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.advise.calls import Call
from tasks.evaluate.prompts.joining import Joined, join
from tasks.evaluate.prompts.pieces import ChatTurn, encode, question_and_answer
from tasks.tokens.special_tokens import special_tokens

ANSWER_FORM = "\n\nQuestion: {question}\nAnswer:"
NOTE_FORM = "\n\nQuestion: {question}\nWhat the text above says about the question:"
REFINE_FORM = "Notes so far: {notes}\n\n{text}"


@dataclass(frozen=True)
class Prompting:
    """Makes calls. `chat`: the turn of the base's chat template around a question; None for plain text."""

    tokenizer: Any
    chat: ChatTurn | None
    answer_tokens: int
    note_tokens: int

    def num_tokens(self, text: str) -> int:
        return len(encode(text, self.tokenizer))

    def answering(self, context: str, question: str, answer: str, *, weighs_itself: bool = False) -> Call:
        """Ask the question about `context`; the right answer's log-probability is wanted."""
        asked, right = question_and_answer(ANSWER_FORM.format(question=question), f" {answer}", self.tokenizer, self.chat)
        joined = self._joined(context, asked, right)
        return Call(joined.tokens, self.answer_tokens, joined.answer, weighs_itself)

    def noting(self, text: str, question: str) -> Call:
        """Ask for a note on what `text` says about the question."""
        asked, _ = question_and_answer(NOTE_FORM.format(question=question), " -", self.tokenizer, self.chat)
        nothing = np.empty(0, np.int32)
        return Call(self._joined(text, asked, nothing).tokens, self.note_tokens, nothing)

    def num_needed(self, call: Call) -> int:
        """Tokens of prompt and answer, which the window must hold."""
        return len(call.prompt) + max(call.max_new_tokens, len(call.answer))

    def _joined(self, context: str, asked: np.ndarray, answer: np.ndarray) -> Joined:
        opening = self.chat.opening if self.chat else special_tokens(self.tokenizer).opening
        return join([opening, encode(context, self.tokenizer), asked], answer, self.tokenizer)
