"""Questions from held-out documents, without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
_FORMS: dict[QuestionKind, tuple[Callable[[str, np.random.Generator], Draft | None], ...]] = {
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
        UserError: no document has `MIN_TOKENS` tokens.
    """
    long_enough = [(name, text) for name, text in documents if count_tokens(text) >= MIN_TOKENS]
    if not long_enough:
        raise UserError(
            f"None of the {len(documents)} held-out documents has {MIN_TOKENS} tokens, so no questions can be made: add longer documents "
            "or give a file of questions."
        )
    asked: list[Question] = []
    replaced = cut = 0
    for kind, forms in _FORMS.items():
        for number, (name, text) in enumerate(_in_turn(long_enough, per_kind, seed, kind)):
            rng = np.random.default_rng(sample_seed(seed, kind, 1, number))
            body = excerpt(text, max_tokens, count_tokens, rng)
            draft, is_replaced = _draft(forms[number % len(forms)], body, rng)
            while max_tokens is not None and count_tokens(draft.document) > max_tokens:
                body = excerpt(body, count_tokens(body) - (count_tokens(draft.document) - max_tokens), count_tokens, rng)
                draft, is_replaced = _draft(forms[number % len(forms)], body, rng)
            asked.append(_question(f"{kind}-{number}", kind, name, draft, rng))
            replaced += is_replaced
            cut += len(body) < len(text)
    notes = []
    if short := len(documents) - len(long_enough):
        notes.append(
            f"{short} of {len(documents)} held-out documents have fewer than {MIN_TOKENS} tokens and were not asked about."
        )
    if cut:
        notes.append(
            f"{cut} of {len(asked)} questions are on a stretch of their document, which is longer than {max_tokens} tokens."
        )
    if replaced:
        notes.append(
            f"{replaced} of {len(asked)} questions ask for planted sentences, as their document has no unique words to ask for."
        )
    return Questions(tuple(asked), "documents", tuple(notes))


def _in_turn(documents: Sequence[tuple[str, str]], count: int, seed: int, kind: str) -> list[tuple[str, str]]:
    """`count` documents: all in a random order, then all in another one, and so on, so that no form keeps to one document."""
    rounds = range(-(-count // len(documents)))
    orders = [np.random.default_rng(sample_seed(seed, kind, 0, one)).permutation(len(documents)) for one in rounds]
    return [documents[i] for i in np.concatenate([np.empty(0, int), *orders]).tolist()][:count]


def _draft(form: Callable[[str, np.random.Generator], Draft | None], text: str, rng: np.random.Generator) -> tuple[Draft, bool]:
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
