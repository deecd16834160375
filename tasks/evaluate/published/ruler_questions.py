"""RULER's question answering: `qa_1` on SQuAD and `qa_2` on HotpotQA (Hsieh et al. 2024, arXiv 2404.06654; NVIDIA/RULER, Apache-2.0).

Documents of other questions fill the prompt. They are shuffled with one seed for all samples, so the document with the answer
always has the same place among as many others, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from data_schemas.errors import UserError
from tasks.evaluate.published.ruler_settings import QA_DOCUMENT, QA_PROMPT, QA_TOKENS, SEED
from tasks.evaluate.published.ruler_sizing import Drawn, Sizes, estimated, fitting, largest_size

_STEP = 10


@dataclass(frozen=True)
class Question:
    """Indices of `documents`: those with the answer, and others of the same article."""

    query: str
    answers: tuple[str, ...]
    needed: tuple[int, ...]
    related: tuple[int, ...] = ()


@dataclass(frozen=True)
class QuestionSet:
    """Questions in the file's order, and all different documents, sorted."""

    questions: tuple[Question, ...]
    documents: tuple[str, ...]


def squad_questions(data: Any) -> QuestionSet:
    """From SQuAD 2's JSON; questions without an answer are left out."""
    documents = sorted({p["context"] for article in data["data"] for p in article["paragraphs"]})
    place = {text: index for index, text in enumerate(documents)}
    questions = []
    for article in data["data"]:
        of_article = [place[p["context"]] for p in article["paragraphs"]]
        for paragraph in article["paragraphs"]:
            needed = place[paragraph["context"]]
            related = tuple(index for index in of_article if index != needed)
            questions += [
                Question(asked["question"], tuple(a["text"] for a in asked["answers"]), (needed,), related)
                for asked in paragraph["qas"]
                if not asked["is_impossible"]
            ]
    return QuestionSet(tuple(questions), tuple(documents))


def hotpotqa_questions(data: Any) -> QuestionSet:
    """From HotpotQA's distractor JSON."""

    def text(title: str, sentences: list[str]) -> str:
        return f"{title}\n{''.join(sentences)}"

    documents = sorted({text(*context) for asked in data for context in asked["context"]})
    place = {document: index for index, document in enumerate(documents)}
    questions = tuple(
        Question(asked["question"], (asked["answer"],), tuple(place[text(*context)] for context in asked["context"]))
        for asked in data
    )
    return QuestionSet(questions, tuple(documents))


def question_samples(name: str, found: QuestionSet, length: int, num_samples: int, count: Callable[[str], int]) -> list[Drawn]:
    """Prompts of the first questions at `length` tokens, answer included.

    Raises:
        UserError: a prompt does not fit, or there are fewer questions than samples.
    """
    if len(found.questions) < num_samples:
        raise UserError(
            f"RULER's {name} has {len(found.questions)} questions in its file and {num_samples} are asked for: "
            "lower evaluation.published_samples."
        )
    rng = Random(SEED)
    limit = length - QA_TOKENS

    def draw_of(question: Question) -> Callable[[int], Drawn]:
        return lambda size: _prompt(question, found.documents, size, rng)

    first = draw_of(found.questions[0])
    upper = estimated(count(first(_STEP).text), _STEP, length)
    size = largest_size(first, Sizes(step=_STEP, upper=upper), count, limit)
    return [fitting(draw_of(q), size, _STEP, count, limit, name, length) for q in found.questions[:num_samples]]


def _prompt(question: Question, documents: tuple[str, ...], size: int, rng: Random) -> Drawn:
    if size < len(documents):
        wanted = size - len(question.needed)
        if wanted > len(question.related):
            known = {*question.needed, *question.related}
            others = [index for index in range(len(documents)) if index not in known]
            chosen = [*question.needed, *question.related, *rng.sample(others, max(0, wanted - len(question.related)))]
        else:
            chosen = [*question.needed, *rng.sample(question.related, wanted)]
        texts = [documents[index] for index in chosen]
    else:
        texts = list((documents * -(-size // len(documents)))[:size])
    Random(SEED).shuffle(texts)
    context = "\n\n".join(QA_DOCUMENT.format(number=i, document=text) for i, text in enumerate(texts, start=1))
    return Drawn(QA_PROMPT.format(context=context, query=question.query), question.answers)
