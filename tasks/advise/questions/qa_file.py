"""Questions that the user gives, on documents of the corpus or in the file itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from tasks.advise.questions.planting import Spans, without
from tasks.advise.questions.question import Question, Questions, score
from tasks.evaluate.prompts.material import sample_seed

SHAPE = "{question, answers, gold, document or document_id}"


@dataclass(frozen=True)
class _Given:
    """One line. `where` names it in errors."""

    where: str
    line: int
    question: str
    answers: tuple[str, ...]
    golds: tuple[str, ...]
    document: str | None
    document_id: str | None


def read_questions(qa_file: Path, documents: Mapping[str, str]) -> Questions:
    """The questions of a JSON Lines file; empty lines are skipped.

    Each line has `question`, `answers` (a list; any of them is right) and `gold`: the passage with the evidence, word for word, or a
    list of passages. `document` is the text asked about, or `document_id` names one of `documents`; with neither, the document is the
    only one that holds all of `gold`. `gold` may be left out if the document is given and holds an answer. The file of
    `evaluation.qa_file` works too, if its gold passages are in the documents.

    Raises:
        UserError: the file cannot be read, a line lacks a field, or its evidence is in no document or in several; names the
            line.
    """
    asked = []
    outside = held = 0
    for given in _lines(qa_file):
        document_id, document = _document(given, documents)
        evidence = _evidence(given, document)
        spans, num_outside = _with_answers(document, evidence, given.answers)
        outside += num_outside > 0
        rng = np.random.default_rng(sample_seed(0, "given", 0, given.line))
        control = without(document, spans, given.answers, rng)
        question = Question(
            f"given-{given.line}", "given", document_id, document, control, given.question, given.answers, evidence
        )
        held += score(question, control) > 0
        asked.append(question)
    if not asked:
        raise UserError(f"{qa_file} has no question: give one JSON object {SHAPE} a line.")
    counts = {
        f"{outside} of {len(asked)} questions have an answer that also stands outside their evidence; the control lacks it too.": outside,
        f"{held} of {len(asked)} questions have a control that still holds an answer.": held,
    }
    return Questions(tuple(asked), "qa_file", tuple(note for note, count in counts.items() if count))


def _lines(qa_file: Path) -> Iterator[_Given]:
    try:
        text = qa_file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{qa_file} cannot be read as UTF-8 text ({error}): give another file of questions.") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _given(line, number, f"Line {number} of {qa_file}")


def _given(line: str, number: int, where: str) -> _Given:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error.msg} at column {error.colno}): correct or remove it.") from error
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object: write {SHAPE}.")
    question, answers = _texts(record, "question", where), _texts(record, "answers", where)
    golds = _texts(record, "gold", where, is_needed=False)
    (document,) = _texts(record, "document", where, is_needed=False) or (None,)
    (document_id,) = _texts(record, "document_id", where, is_needed=False) or (None,)
    if document is None and document_id is None and not golds:
        raise UserError(f"{where} has neither `gold` nor a document: write {SHAPE}.")
    return _Given(where, number, question[0].strip(), tuple(map(str.strip, answers)), golds, document, document_id)


def _texts(record: dict[str, Any], name: str, where: str, *, is_needed: bool = True) -> tuple[str, ...]:
    """The texts of a field, which is a text or, but for single ones, a list of texts."""
    value = record.get(name)
    if value is None and not is_needed:
        return ()
    many = name in ("answers", "gold")
    values = value if isinstance(value, list) and many else [value]
    if not values or not all(isinstance(one, str) and one.strip() for one in values):
        asked = "a text or a list of texts that are not empty" if many else "a text that is not empty"
        raise UserError(f"{where}: `{name}` is missing or wrong: give {asked}.")
    return tuple(values)


def _document(given: _Given, documents: Mapping[str, str]) -> tuple[str, str]:
    if given.document is not None:
        named = f"text-{hashlib.sha256(given.document.encode()).hexdigest()[:12]}"  # lines with the same text ask about one document
        return given.document_id or named, given.document
    if given.document_id is not None:
        if given.document_id not in documents:
            raise UserError(
                f"{given.where}: `document_id` {given.document_id} is none of the {len(documents)} held-out documents: correct it, or "
                "give the text as `document`."
            )
        return given.document_id, documents[given.document_id]
    holding = [name for name, text in documents.items() if all(gold in text for gold in given.golds)]
    if len(holding) == 1:
        return holding[0], documents[holding[0]]
    if holding:
        raise UserError(
            f"{given.where}: its `gold` is in {len(holding)} held-out documents: name one as `document_id`, or give a longer passage."
        )
    raise UserError(
        f"{given.where}: its `gold` is in none of the {len(documents)} held-out documents word for word: correct it, or give the text as "
        "`document`."
    )


def _evidence(given: _Given, document: str) -> Spans:
    """Every occurrence of the gold passages, else of the answers. Overlapping ones are one."""
    for gold in given.golds:
        if gold not in document:
            raise UserError(f"{given.where}: its `gold` is not in its document word for word: correct one of them.")
    found = [span for gold in given.golds for span in _occurrences(re.escape(gold), document)]
    if not found:
        found = _answers(document, given.answers, are_words=True) or _answers(document, given.answers)
    if not found:
        raise UserError(f"{given.where}: none of `answers` is in its document: give the passage with the evidence as `gold`.")
    return _merged(found)


def _with_answers(document: str, evidence: Spans, answers: Sequence[str]) -> tuple[Spans, int]:
    """The evidence, and what answers outside it; and how many of those there are."""
    others = [
        (start, end)
        for start, end in _answers(document, answers)
        if not any(first <= start and end <= last for first, last in evidence)
    ]
    return _merged([*evidence, *others]), len(others)


def _answers(document: str, answers: Sequence[str], *, are_words: bool = False) -> list[tuple[int, int]]:
    """Where `score` would find an answer: in any case and across any white space, also within words unless `are_words`."""
    folded, places = _folded(document)
    found = []
    for answer in answers:
        pattern = r"\s+".join(map(re.escape, answer.casefold().split()))
        for start, end in _occurrences(rf"(?<!\w){pattern}(?!\w)" if are_words else pattern, folded):
            found.append((places[start], places[end - 1] + 1))
    return found


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """The text in folded case, and for each character of it the place in `text` that it comes from."""
    folded = text.casefold()  # folding never shortens
    if len(folded) == len(text):
        return folded, range(len(text))
    return folded, [place for place, character in enumerate(text) for _ in character.casefold()]


def _occurrences(pattern: str, text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]


def _merged(spans: Sequence[tuple[int, int]]) -> Spans:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
