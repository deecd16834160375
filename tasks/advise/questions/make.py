"""Questions from held-out documents, without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_schemas.errors import UserError
from data_schemas.serving_advice import QuestionKind
from tasks.advise.questions import far_apart, local, spread
from tasks.advise.questions.draft import Draft
from tasks.advise.questions.fitting import excerpt
from tasks.advise.questions.planting import without
from tasks.advise.questions.question import Question, Questions
from tasks.evaluate.prompts.material import sample_seed

MIN_TOKENS = 200  # of a document that is asked about: evidence can stand apart in it
_Form = Callable[[str, np.random.Generator], Draft | None]
_FORMS: dict[QuestionKind, tuple[_Form, ...]] = {
    "local": (local.quote, local.fact),
    "far_apart": (far_apart.two_facts,),
    "spread": spread.FORMS,
}
_INSTEAD: dict[object, Callable[[str, np.random.Generator], Draft]] = {
    local.quote: local.fact,
    spread.count_word: spread.count_marker,
}


def make_questions(
    documents: Sequence[tuple[str, str]],
    *,
    per_kind: int,
    seed: int,
    count_tokens: Callable[[str], int],
    max_tokens: int | None,
) -> Questions:
    """`per_kind` questions of each kind, on as many different documents as there are; the same for the same arguments.

    Args:
        documents: id and text of each.
        max_tokens: a longer document is cut to a random stretch that has no more tokens with its planted sentences. None: not cut.

    Raises:
        UserError: no document has `MIN_TOKENS` tokens, or `max_tokens` leaves no room for any question.
    """
    long_enough = [(name, text) for name, text in documents if count_tokens(text) >= MIN_TOKENS]
    if not long_enough:
        raise UserError(
            f"None of the {len(documents)} held-out documents has {MIN_TOKENS} tokens, so no questions can be made: add longer documents "
            "or give a file of questions."
        )
    asked: list[Question] = []
    planted = replaced = cut = left_out = 0
    for kind, forms in _FORMS.items():
        for number, (name, text) in enumerate(_in_turn(long_enough, per_kind, seed, kind)):
            rng = np.random.default_rng(sample_seed(seed, kind, 1, number))
            made = _fitted(forms[number % len(forms)], text, max_tokens, count_tokens, rng)
            if made is None:
                left_out += 1
                continue
            asked.append(_question(f"{kind}-{number}", kind, name, made.draft, rng))
            planted += made.is_planted
            replaced += made.is_replaced
            cut += made.is_cut
    if not asked:
        raise UserError(
            f"Questions need documents longer than {max_tokens} tokens, as planted sentences take most of that: allow longer documents."
        )
    counts = {
        f"{len(documents) - len(long_enough)} of {len(documents)} held-out documents have fewer than {MIN_TOKENS} tokens and were not "
        "asked about.": len(documents) - len(long_enough),
        f"{left_out} questions were left out, as their planted sentences take most of the {max_tokens} tokens of a document.": left_out,
        f"{cut} of {len(asked)} questions are on a stretch of their document, which is longer than {max_tokens} tokens.": cut,
        f"{planted} of {len(asked)} questions ask for planted sentences. These share words with the question, so BM25 finds them easily, "
        "and chunks may look better than they are.": planted,
        f"{replaced} of these were to ask for words of their document, which has no unique ones.": replaced,
    }
    return Questions(tuple(asked), "documents", tuple(note for note, count in counts.items() if count))


@dataclass(frozen=True)
class _Made:
    """A draft; whether it plants sentences, has another form because its own found nothing to ask, and is on a cut document."""

    draft: Draft
    is_planted: bool
    is_replaced: bool
    is_cut: bool


def _fitted(
    form: _Form, text: str, max_tokens: int | None, count_tokens: Callable[[str], int], rng: np.random.Generator
) -> _Made | None:
    """A question on a stretch of the document that fits with its planted sentences; None where less than a half is the document's own."""
    body = excerpt(text, max_tokens, count_tokens, rng)
    while True:
        draft, is_replaced = _draft(form, body, rng)
        if max_tokens is None or (tokens := count_tokens(draft.document)) <= max_tokens:
            return _Made(draft, draft.document != body, is_replaced, len(body) < len(text))
        room = count_tokens(body) - (tokens - max_tokens)
        if room < max_tokens // 2:
            return None
        body = excerpt(body, room, count_tokens, rng)


def _in_turn(documents: Sequence[tuple[str, str]], count: int, seed: int, kind: str) -> list[tuple[str, str]]:
    """`count` documents: all in a random order, then all in another one, and so on, so that no form keeps to one document."""
    rounds = range(-(-count // len(documents)))
    orders = [np.random.default_rng(sample_seed(seed, kind, 0, one)).permutation(len(documents)) for one in rounds]
    return [documents[i] for i in np.concatenate([np.empty(0, int), *orders]).tolist()][:count]


def _draft(form: _Form, text: str, rng: np.random.Generator) -> tuple[Draft, bool]:
    """A draft, and whether it has another form because this one found nothing to ask."""
    found = form(text, rng)
    return (_INSTEAD[form](text, rng), True) if found is None else (found, False)


def _question(name: str, kind: QuestionKind, document_id: str, draft: Draft, rng: np.random.Generator) -> Question:
    control = without(draft.document, draft.evidence, draft.hidden, rng)
    return Question(
        id=name,
        kind=kind,
        document_id=document_id,
        document=draft.document,
        control=control,
        question=draft.question,
        answers=draft.answers,
        evidence=draft.evidence,
        form=draft.form,
        options=draft.options,
    )
