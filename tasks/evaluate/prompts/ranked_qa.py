"""Ranked passages from the user's own questions: the file's `passages` in their order, with the gold one inserted at its rank.

The first passages of the file are used, as many as fit the length. Templates and scoring are those of document_qa.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.evaluate.prompts.document_qa import OPENING, OUTPUT_TOKENS, QUESTION
from tasks.evaluate.prompts.joining import join, most_that_fit
from tasks.evaluate.prompts.material import Material, sample_seed
from tasks.evaluate.prompts.pieces import encode, encode_each, generation_limit, question_and_answer
from tasks.evaluate.prompts.prompt import RANKED_TASK
from tasks.evaluate.prompts.qa import QaExample
from tasks.evaluate.prompts.ranked import RankedQuestion, RankedSet, gold_rank, rank_quantiles

FEWEST_PASSAGES = 3  # of two, all orders but one are the same


@dataclass(frozen=True)
class _Encoded:
    """A question and its passages as tokens, the gold one first."""

    example: QaExample
    front: np.ndarray
    labels: list[np.ndarray]
    passages: list[np.ndarray]
    question: np.ndarray
    answer: np.ndarray
    max_new_tokens: int

    @property
    def is_forced(self) -> bool:
        return len(self.example.answers) == 1

    def most_passages(self, length: int) -> int:
        """As many as fit, the gold one among them."""
        asking = len(self.question) + max(len(self.answer), self.max_new_tokens)
        sizes = [len(label) + len(passage) for label, passage in zip(self.labels, self.passages, strict=True)]
        ends = len(self.front) + asking + np.cumsum(sizes)
        return int(np.searchsorted(ends, length, side="right"))


def qa_questions(lengths: Sequence[int], num_samples: int, material: Material) -> RankedSet:
    """A seeded choice of the file's questions, each at those of `lengths` that hold enough of its passages."""
    order = np.random.default_rng(sample_seed(material.seed, RANKED_TASK, 0, 0)).permutation(len(material.qa))
    encoded = [_encode(material.qa[i], material) for i in order.tolist()]
    usable = [one for one in encoded if one.most_passages(max(lengths, default=0)) >= FEWEST_PASSAGES][:num_samples]
    quantiles = rank_quantiles(len(usable), material.seed)
    found: dict[int, tuple[RankedQuestion, ...]] = {}
    for length in lengths:
        counts = [_most_passages(one, length, material) for one in usable]
        if questions := tuple(
            _question(one, sample, length, count, float(quantiles[sample]), material)
            for sample, (one, count) in enumerate(zip(usable, counts, strict=True))
            if count >= FEWEST_PASSAGES
        ):
            found[length] = questions
    too_long = f"no question of evaluation.qa_file fits {max(lengths, default=0)} tokens with {FEWEST_PASSAGES} passages"
    return RankedSet(found, "" if found else too_long)


def _most_passages(one: _Encoded, length: int, material: Material) -> int:
    """As many as fit when the prompt is encoded as a whole; fewer than the fewest where these do not fit."""

    def needed(count: int) -> int:
        pieces = [piece for pair in zip(one.labels, one.passages[:count], strict=False) for piece in pair]
        joined = join([one.front, *pieces, one.question], one.answer, material.tokenizer)
        return len(joined.tokens) + max(len(joined.answer), one.max_new_tokens)

    return most_that_fit(one.most_passages(length), FEWEST_PASSAGES, len(one.passages), length, needed)


def _encode(example: QaExample, material: Material) -> _Encoded:
    tokenizer = material.tokenizer
    texts = [f" {text}\n" for text in (example.gold, *example.passages)]
    question, answer = question_and_answer(
        QUESTION.format(question=example.question), f" {example.answers[0]}", tokenizer, material.chat
    )
    limit = len(answer) if len(example.answers) == 1 else generation_limit(answer, OUTPUT_TOKENS)
    return _Encoded(
        example=example,
        front=np.concatenate([material.haystack.bos, encode(OPENING, tokenizer)]),
        labels=encode_each([f"\nPassage [{number}]" for number in range(1, len(texts) + 1)], tokenizer),
        passages=encode_each(texts, tokenizer),
        question=question,
        answer=answer,
        max_new_tokens=limit,
    )


def _question(one: _Encoded, sample: int, length: int, count: int, quantile: float, material: Material) -> RankedQuestion:
    gold, *others = one.passages[:count]
    rank = gold_rank(quantile, count)
    return RankedQuestion(
        length=length,
        sample=sample,
        seed=sample_seed(material.seed, RANKED_TASK, 0, sample),
        front=one.front,
        labels=tuple(one.labels[:count]),
        passages=(*others[: rank - 1], gold, *others[rank - 1 :]),
        gold_rank=rank,
        gold_at=0,
        question=one.question,
        answer=one.answer,
        golds=one.example.answers,
        is_forced=one.is_forced,
        max_new_tokens=one.max_new_tokens,
    )
