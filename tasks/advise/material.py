"""The documents and questions of the advice, and what their lengths alone tell."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.params import AdviseParams
from tasks.advise.plan import told_beforehand
from tasks.advise.questions import MIN_TOKENS, Questions, make_questions, read_questions
from tasks.evaluate.heldout import read_heldout

LOOKED_AT = 512  # held-out documents at most
QUESTION_TOKENS = 160  # kept free for a question beside its document


@dataclass(frozen=True)
class Material:
    """The questions, or in `told` the answer that needs none. `said`: what to say before questions are asked.

    `lengths`: fewest and most tokens of the documents that are asked about.
    """

    questions: Questions
    told: str
    said: tuple[str, ...]
    lengths: tuple[int, int]


def gather(
    advise: AdviseParams,
    documents: Path,
    qa_file: str | None,
    windows: tuple[int, int],
    count_tokens: Callable[[str], int],
    leave_out: Set[str] = frozenset(),
) -> Material:
    """Read held-out documents, and read or make the questions.

    Args:
        documents: folder of the `documents` artifact.
        windows: tokens of the base's window, and of the extended one.
        leave_out: ids of documents that are not asked about.

    Raises:
        UserError: there is no held-out document, or none is long enough for a question; a file of questions is wrong.
    """
    if qa_file is not None:
        return _given(advise, documents, Path(qa_file), windows, count_tokens, leave_out)
    texts = list(islice(read_heldout(documents, min_bytes=1, leave_out=leave_out), LOOKED_AT))
    if not texts:
        raise UserError(
            "There is no held-out document, so no questions can be made: raise corpus.heldout_fraction, or give advise.qa_file."
        )
    base, target = windows
    needed = QUESTION_TOKENS + advise.answer_tokens
    lengths = [count_tokens(text) for _, text in texts]
    told = told_beforehand(lengths, base, target, needed)
    if told and max(lengths) + needed <= base:
        return Material(Questions((), "documents"), told, (told,), (min(lengths), max(lengths)))
    long = [one for one, length in zip(texts, lengths, strict=True) if length + needed > base and length >= MIN_TOKENS]
    if not long:
        raise UserError(
            f"None of the {len(texts)} held-out documents has {MIN_TOKENS} tokens, so no questions can be made: add longer documents, "
            "or give advise.qa_file."
        )
    notes = []
    if fits := len(texts) - len(long):
        notes.append(
            f"{fits} of {len(texts)} held-out documents fit the base's window of {base} tokens and were not asked about: the whole "
            "document serves them."
        )
    most = advise.max_document_tokens or (2 * target if told else max(MIN_TOKENS, target - needed))
    made = make_questions(
        long, per_kind=advise.questions_per_kind, seed=advise.seed, count_tokens=count_tokens, max_tokens=most
    )
    questions = Questions(made.asked, made.origin, (*notes, *made.notes))
    return Material(questions, "", (told, *questions.notes) if told else questions.notes, _range(questions, count_tokens))


def _given(
    advise: AdviseParams,
    documents: Path,
    qa_file: Path,
    windows: tuple[int, int],
    count_tokens: Callable[[str], int],
    leave_out: Set[str],
) -> Material:
    read = read_questions(qa_file, dict(read_heldout(documents, min_bytes=1)))
    asked = tuple(question for question in read.asked if question.document_id not in leave_out)
    if not asked:
        raise UserError(
            f"All {len(read.asked)} questions of {qa_file} are on held-out documents that training saw too much of "
            "(evaluation.max_seen_share): ask about other documents."
        )
    notes = list(read.notes)
    if seen := len(read.asked) - len(asked):
        notes.append(
            f"{seen} of {len(read.asked)} given questions are on held-out documents that training saw too much of "
            "(evaluation.max_seen_share), and were not asked."
        )
    questions = Questions(asked, read.origin, tuple(notes))
    lengths = [count_tokens(text) for text in {question.document for question in asked}]
    needed = QUESTION_TOKENS + advise.answer_tokens
    told = told_beforehand(lengths, *windows, needed, "documents that are asked about")
    if told and max(lengths) + needed <= windows[0]:
        return Material(Questions((), read.origin), told, (told,), (min(lengths), max(lengths)))
    return Material(questions, "", (told, *notes) if told else questions.notes, (min(lengths), max(lengths)))


def _range(questions: Questions, count_tokens: Callable[[str], int]) -> tuple[int, int]:
    lengths = [count_tokens(text) for text in {question.document for question in questions.asked}]
    return min(lengths), max(lengths)
