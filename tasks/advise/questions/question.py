"""One question on one document, and how an answer to it is scored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from data_schemas.serving_advice import QuestionKind
from tasks.evaluate.prompts.score import score_output

# What is asked: a planted fact, words of the document, two facts, counts, first and last mention, order, contradiction.
Form = Literal["fact", "quote", "two_facts", "count", "first", "last", "order", "contradiction", "given"]

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Question:
    """`document` holds the evidence; `control` is the same text with other text of the document in its place.

    Args:
        answers: any of them is right.
        evidence: character spans of `document`, in reading order.
        options: what the question lets choose from; a model that guesses is right once in as many. Empty: an open question.
    """

    id: str
    kind: QuestionKind
    document_id: str
    document: str
    control: str
    question: str
    answers: tuple[str, ...]
    evidence: tuple[tuple[int, int], ...]
    form: Form = "given"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Questions:
    """`notes`: for people, what could not be asked, with counts."""

    asked: tuple[Question, ...]
    origin: Literal["qa_file", "documents"]
    notes: tuple[str, ...] = ()


def score(question: Question, answer: str) -> float:
    """1 for a right answer, else 0.

    An open question's answer must contain one of `answers`, ignoring case and the width of white space. Of options, the first one that
    is named counts; of an order, the places where the options are first named; of a count, the first number.
    """
    text = _plain(answer)
    if question.form == "count":
        return float(_first_number(text) == int(question.answers[0]))
    if question.form == "order":
        return float(_in_order(text, question.options) == list(question.answers[0].split(", ")))
    if question.options:
        named = _in_order(text, question.options)
        return float(named[:1] == [question.answers[0]])
    return float(score_output(text, [_plain(gold) for gold in question.answers]) > 0)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _first_number(text: str) -> int | None:
    for word in re.findall(r"\d+|[^\W\d_]+", text.casefold()):
        if word.isdecimal():
            return int(word)
        if word in NUMBER_WORDS:
            return NUMBER_WORDS.index(word)
    return None


def _in_order(text: str, options: tuple[str, ...]) -> list[str]:
    """The options that `text` names as whole words, by the place of their first mention."""
    found = {}
    for option in options:
        if mention := re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text, re.IGNORECASE):
            found[option] = mention.start()
    return sorted(found, key=found.__getitem__)
