"""A draft as the token ids of its whole text, and which tokens are answers or invented.

The text between control tokens is encoded as one piece, so the ids are those that the tokenizer gives the finished document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tasks.retrieval.chat import ChatFrame
from tasks.retrieval.draft import Draft
from tasks.tokens.encoding import EncodedText, Encoder
from tasks.tokens.special_tokens import SpecialTokens

_BEFORE_TURNS, _BETWEEN_TURNS = "\n\n", "\n"
Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A document as tokens.

    token_ids  int32 [num_tokens], BOS and EOS or the chat template's tokens included
    is_answer  bool [num_tokens]
    is_invented  bool [num_tokens]: of a text that nothing predicts
    evidence   token at which each turn's evidence begins
    answered   token at which each turn's answer begins
    text       without control tokens
    """

    token_ids: np.ndarray
    is_answer: np.ndarray
    is_invented: np.ndarray
    evidence: tuple[int, ...]
    answered: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Renderer:
    """Writes drafts with one tokenizer; questions and answers as turns of `chat`, if there is one."""

    encoder: Encoder
    special: SpecialTokens
    chat: ChatFrame | None

    def render(self, draft: Draft, fill: str) -> Rendered:
        """`draft` with `fill` in its place."""
        writing = _Writing(self.encoder)
        marks = [turn.evidence for turn in draft.turns]
        body = draft.before + fill

        def invented(text: str) -> list[Span]:
            return [(0, len(text))] if draft.asks_invented and text else []

        opening = [] if self.special.bos is None else [self.special.bos]
        closing = [] if self.special.eos is None else [self.special.eos]
        if self.chat is None or not draft.turns:
            writing.add_front(opening)
            evidence = writing.add_text(body, draft.answers, marks, draft.invented)
            writing.add_text(draft.after, [(0, len(draft.after))] if draft.after_weighs else [])
            answered = []
            for number, turn in enumerate(draft.turns):
                question = (_BETWEEN_TURNS if number else _BEFORE_TURNS) + turn.question
                writing.add_text(question, invented=invented(question))
                answered += writing.add_text(turn.answer, [_visible(turn.answer)], [_visible(turn.answer)[0]])
                writing.add_text(turn.end, invented=invented(turn.end))
            writing.add_ids(closing)
            return writing.finish(evidence, answered)
        frame = self.chat
        if frame.opening[:1] != tuple(opening):
            writing.add_front(opening)
        writing.add_ids(frame.opening)
        evidence = writing.add_text(body, draft.answers, marks, draft.invented)
        writing.add_text(draft.after + _BEFORE_TURNS)
        answered = []
        for number, turn in enumerate(draft.turns):
            if number:
                writing.add_ids(frame.to_question)
            writing.add_text(turn.question, invented=invented(turn.question))
            writing.add_ids(frame.to_answer)
            answer = turn.answer.strip()
            answered += writing.add_text(answer, [(0, len(answer))], [0])
        writing.add_ids(frame.closing)
        if not any(self.encoder.is_control[list(frame.closing)]):
            writing.add_ids(closing)
        return writing.finish(evidence, answered)


def _visible(text: str) -> Span:
    """The span of a text without white space around it."""
    return len(text) - len(text.lstrip()), len(text.rstrip())


def _marked(spans: list[Span], num_tokens: int) -> np.ndarray:
    found = np.zeros(num_tokens, bool)
    for start, end in spans:
        found[start:end] = True
    return found


@dataclass
class _Run:
    """Text between two control tokens, and what is marked in it; `is_start`: the tokenizer puts its space in front of it."""

    encoder: Encoder
    first_token: int
    is_start: bool
    text: str = ""
    answers: list[Span] = field(default_factory=list)
    invented: list[Span] = field(default_factory=list)

    @cached_property
    def encoded(self) -> EncodedText:
        return next(self.encoder.encode([self.text], is_start=self.is_start))

    def token_of(self, char: int) -> int:
        """The token that holds a character, counted from the document's first."""
        cut = int(np.searchsorted(self.encoded.cut_char, char, side="right")) - 1
        return self.first_token + int(self.encoded.cut_token[cut])

    def end_token(self, char: int) -> int:
        cut = int(np.searchsorted(self.encoded.cut_char, char, side="left"))
        return self.first_token + int(self.encoded.cut_token[cut])


class _Writing:
    """A document while it is written: runs of text and control tokens."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._ids: list[np.ndarray] = []
        self._num_tokens = 0
        self._run = _Run(encoder, 0, is_start=True)
        self._texts: list[str] = []
        self._answers: list[Span] = []
        self._invented: list[Span] = []
        self._marks: list[tuple[_Run, int]] = []

    def add_text(
        self,
        text: str,
        answers: Sequence[Span] = (),
        marks: Sequence[int] = (),
        invented: Sequence[Span] = (),
    ) -> list[int]:
        """Write `text` with its spans of answers and invented text; returns a number for each of `marks`, for `finish`."""
        run, start = self._run, len(self._run.text)
        run.text += text
        run.answers += [(start + a, start + b) for a, b in answers]
        run.invented += [(start + a, start + b) for a, b in invented]
        self._marks += [(run, start + mark) for mark in marks]
        return list(range(len(self._marks) - len(marks), len(self._marks)))

    def add_front(self, ids: list[int]) -> None:
        """Put BOS, if `ids` has it, in front of the document, whose text begins behind it."""
        self.add_ids(ids)
        self._run.is_start = True

    def add_ids(self, ids: list[int] | tuple[int, ...]) -> None:
        """Write token ids, control tokens as they are and the others as text."""
        plain: list[int] = []
        for token in ids:
            if self._encoder.is_control[token]:
                self._add_plain(plain)
                plain = []
                self._end_run(token)
            else:
                plain.append(token)
        self._add_plain(plain)

    def finish(self, evidence: list[int], answered: list[int]) -> Rendered:
        self._end_run(None)
        ids = np.concatenate([np.empty(0, np.int32), *self._ids])
        places = [run.token_of(char) for run, char in self._marks]
        return Rendered(
            ids,
            _marked(self._answers, len(ids)),
            _marked(self._invented, len(ids)),
            tuple(places[i] for i in evidence),
            tuple(places[i] for i in answered),
            "".join(self._texts),
        )

    def _add_plain(self, ids: list[int]) -> None:
        if ids:
            self.add_text(self._encoder.text(np.array(ids, np.int32)))

    def _end_run(self, control: int | None) -> None:
        run = self._run
        if run.text:
            self._ids.append(run.encoded.ids)
            self._num_tokens += len(run.encoded.ids)
            self._texts.append(run.text)
            self._answers += [(run.token_of(a), run.end_token(b)) for a, b in run.answers]
            self._invented += [(run.token_of(a), run.end_token(b)) for a, b in run.invented]
        if control is not None:
            self._ids.append(np.array([control], np.int32))
            self._num_tokens += 1
            self._run = _Run(self._encoder, self._num_tokens, self._encoder.begins_anew(control))
