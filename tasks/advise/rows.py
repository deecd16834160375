"""The rows of the advice: one way on one question. Everything that is advised is computed from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa

from data_schemas.samples import ADVICE_SAMPLES
from data_schemas.serving_advice import QuestionKind
from tasks.advise.calls import Asked
from tasks.advise.questions import Question, score


@dataclass(frozen=True)
class AnswerRow:
    """A row of ADVICE_SAMPLES."""

    way: str
    question: str
    kind: QuestionKind
    document_id: str
    score: float
    control_score: float | None
    logprob: float | None
    control_logprob: float | None
    own_logprob: float | None
    prompt_tokens: int
    answer_tokens: int
    seconds: float
    output: str
    control_output: str | None
    why_not: str

    @property
    def is_asked(self) -> bool:
        return not self.why_not


def answer_row(way: str, question: Question, asked: Asked, control: Asked | None) -> AnswerRow:
    """Score an answer, and that of its control. What could not be asked scores 0."""
    return AnswerRow(
        way=way,
        question=question.id,
        kind=question.kind,
        document_id=question.document_id,
        score=0.0 if asked.why_not else score(question, first_line(asked.text)),
        control_score=None if control is None or control.why_not else score(question, first_line(control.text)),
        logprob=asked.answer_logprob,
        control_logprob=control.answer_logprob if control else None,
        own_logprob=asked.own_logprob,
        prompt_tokens=asked.prompt_tokens,
        answer_tokens=asked.answer_tokens,
        seconds=asked.seconds,
        output=asked.text,
        control_output=control.text if control else None,
        why_not=asked.why_not,
    )


def first_line(text: str) -> str:
    """What counts as the answer: a base model goes on with further questions in the next lines."""
    return text.strip().split("\n", 1)[0]


def as_table(rows: Iterable[AnswerRow]) -> pa.Table:
    """ADVICE_SAMPLES."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=ADVICE_SAMPLES)
