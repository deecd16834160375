"""Models of known behaviour: each reads the part of its prompt that it can see, and answers what that part tells.

They speak the forms of `tasks.advise.questions`: planted sentences about names, places and codes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.advise.calls import Call, Reply
from tasks.advise.prompting import NOTE_FORM

Sees = Callable[[int], np.ndarray]  # how many tokens there are -> which of them are visible, bool [tokens]
_ASKS_NOTE = NOTE_FORM.partition("{question}\n")[2]
CERTAIN, GUESSED = -0.01, -2.0  # log-probabilities of an answer that was read, and of one that was not


def last_tokens(width: int) -> Sees:
    return lambda num_tokens: np.arange(num_tokens) >= num_tokens - width


def first_and_last_quarter(num_tokens: int) -> np.ndarray:
    place = np.arange(num_tokens)
    return (place < num_tokens / 4) | (place >= num_tokens * 3 / 4)


def everything(num_tokens: int) -> np.ndarray:
    return np.full(num_tokens, True)


@dataclass
class Reader:
    """Reads what `sees` shows of a prompt. The question itself is always seen, as it stands at the end."""

    sees: Sees
    tokenizer: Any
    replies: dict[str, Reply] = field(default_factory=dict)

    def ask_all(self, calls: Sequence[Call]) -> list[Reply]:
        """The same call is read once."""
        for call in calls:
            if call.digest not in self.replies:
                self.replies[call.digest] = self._read(call)
        return [self.replies[call.digest] for call in calls]

    def _read(self, call: Call) -> Reply:
        ids = call.prompt
        visible = self.sees(len(ids))
        whole = self.tokenizer.decode(ids)
        context = self._visible_text(ids, visible)
        question = whole.rpartition("Question: ")[2].partition("\n")[0]
        context = context.rpartition("\n\nQuestion:")[0] or context
        text = " ".join(_relevant(question, context)) if whole.rstrip().endswith(_ASKS_NOTE) else _answer(question, context)
        ids = self.tokenizer(text, add_special_tokens=False).input_ids[: call.max_new_tokens]
        right = self.tokenizer.decode(call.answer).strip()
        own = CERTAIN if text else GUESSED
        return Reply(
            text=self.tokenizer.decode(ids),
            num_tokens=len(ids),
            seconds=len(call.prompt) / 1000,
            own_logprob=own if call.weighs_itself else None,
            answer_logprob=(CERTAIN if text == right else GUESSED) if len(call.answer) else None,
        )

    def _visible_text(self, ids: np.ndarray, visible: np.ndarray) -> str:
        """Runs of visible tokens, with a gap between them."""
        pieces, start = [], 0
        for end in range(1, len(ids) + 1):
            if end == len(ids) or visible[end] != visible[start]:
                if visible[start]:
                    pieces.append(self.tokenizer.decode(ids[start:end]))
                start = end
        return " ~ ".join(pieces)


def _relevant(question: str, context: str) -> list[str]:
    """The planted sentences that name what is asked for, or state a code."""
    asked = re.findall(r"[a-z]+-[a-z]+", question)
    sentences = dict.fromkeys(re.findall(r"# The [^.~\n#]+\.", context))
    return [one for one in sentences if "code" in one or any(name in one for name in asked)]


def _answer(question: str, context: str) -> str:
    """Empty where the visible text does not tell."""
    name = r"([\w-]+)"
    seen = re.findall(rf"# The {name} was seen here\.", context)
    listed = re.findall(rf"the {name}", question.partition(": ")[2])
    if found := re.fullmatch(rf"What is the code of the {name}\?", question):
        return _first(rf"The code of the {re.escape(found[1])} is (\d+)", context)
    if found := re.fullmatch(rf"What is the code of the place in which the {name} is kept\?", question):
        place = _first(rf"The {re.escape(found[1])} is kept in the {name}", context)
        return _first(rf"The code of the {re.escape(place)} is (\d+)", context) if place else ""
    if found := re.fullmatch(rf"How many times was the {name} seen in the document\?", question):
        return str(seen.count(found[1])) if seen else ""
    if "seen first" in question or "seen last" in question:
        return (seen[0] if "seen first" in question else seen[-1]) if seen else ""
    if question.startswith("In which order"):
        return ", ".join(re.findall(rf"# The {name} arrived\.", context))
    codes = re.findall(rf"The code of the {name} is (\d+)", context)
    differing = [one for one in listed if len({code for owner, code in codes if owner == one}) > 1]
    return differing[0] if differing else ""


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""
