"""Writing lines and questions into a text."""

from __future__ import annotations

from tasks.retrieval.draft import Turn
from tasks.retrieval.stretches import Beginnings


class Writing:
    """The document up to its last questions.

    `answers` and `invented` are those of `Draft`.
    """

    def __init__(self, text: str) -> None:
        self.answers: list[tuple[int, int]] = []
        self.invented: list[tuple[int, int]] = []
        self._text, self._beginnings = text, Beginnings(text)
        self._taken = self._written = 0
        self._pieces: list[str] = []

    def line(self, line: str, place: float) -> int:
        """Write a line at a share of the text that is not yet reached; returns the character at which it begins."""
        self._text_up_to(max(self._taken, self._beginnings.nearest(int(place * len(self._text)))))
        start = self._written
        self._write(f"{line}\n")
        self.invented.append((start, self._written))
        return start

    def turn(self, turn: Turn, place: float = 0.0) -> None:
        """Write a question with its answer at that share of the text, or here if the text is already further."""
        self._text_up_to(max(self._taken, self._beginnings.nearest(int(place * len(self._text)))))
        start = self._written
        self._write(turn.question)
        value = turn.answer.lstrip()
        self._write(turn.answer[: -len(value)])
        self.invented.append((start, self._written))
        self.answers.append((self._written, self._written + len(value)))
        self._write(value)
        self.invented.append((self._written, self._written + len(turn.end) + 1))
        self._write(f"{turn.end}\n")

    def finish(self) -> str:
        self._text_up_to(len(self._text))
        return "".join(self._pieces)

    def _text_up_to(self, place: int) -> None:
        front = self._text[self._taken : place]
        self._write(front)
        if front and not front.endswith("\n"):
            self._write("\n")
        self._taken = place

    def _write(self, piece: str) -> None:
        self._pieces.append(piece)
        self._written += len(piece)
