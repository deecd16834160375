"""Questions with the passage that answers them, as the user gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError


@dataclass(frozen=True)
class QaExample:
    """`gold` is the passage with the answer, `passages` are others without it; each of `answers` alone is right.

    `line` is the line of the file it was read from, counted from 1.
    """

    question: str
    answers: tuple[str, ...]
    gold: str
    passages: tuple[str, ...]
    line: int


def read_qa(path: str | Path) -> tuple[QaExample, ...]:
    """The examples of a JSON Lines file of {question, answers, gold, passages}; empty lines are skipped.

    Raises:
        UserError: the file is missing or has no example, or a line is malformed.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"evaluation.qa_file {path} cannot be read as UTF-8 text ({error}): give another file.") from error
    examples = tuple(_examples(text, path))
    if not examples:
        raise UserError(f"evaluation.qa_file {path} has no question: give one JSON object a line.")
    return examples


def _examples(text: str, path: str | Path) -> Iterator[QaExample]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _example(line, number, f"Line {number} of evaluation.qa_file {path}")


def _example(line: str, number: int, where: str) -> QaExample:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error.msg} at column {error.colno}): correct or remove it.") from error
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object: write {{question, answers, gold, passages}}.")
    example = QaExample(
        _text(record, "question", where),
        _texts(record, "answers", where, 1),
        _text(record, "gold", where),
        _texts(record, "passages", where, 1),
        number,
    )
    if not any(_holds(example.gold, answer) for answer in example.answers):
        raise UserError(f"{where}: `gold` contains none of `answers`: give the passage that contains the answer word for word.")
    for place, passage in enumerate(example.passages):
        found = [answer for answer in example.answers if _holds(passage, answer)]
        if found:
            raise UserError(f"{where}: `passages[{place}]` contains the answer {found[0]!r}: remove that passage.")
    return example


def _text(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: `{name}` is missing or not a text: give a string that is not empty.")
    return value.strip()


def _texts(record: dict[str, Any], name: str, where: str, least: int) -> tuple[str, ...]:
    value = record.get(name)
    if not isinstance(value, list) or len(value) < least or not all(isinstance(v, str) and v.strip() for v in value):
        raise UserError(f"{where}: `{name}` is not a list of texts: give at least {least}, none of them empty.")
    return tuple(v.strip() for v in value)


def _holds(passage: str, answer: str) -> bool:
    """Whether `passage` contains `answer` as whole words, ignoring case."""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", passage, re.IGNORECASE) is not None
