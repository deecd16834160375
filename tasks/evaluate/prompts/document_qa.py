"""Multi-document question answering of *Lost in the Middle* (Liu et al. 2023, arXiv 2307.03172, section 2).

The passage with the answer is put at evenly spaced places among as many others as fit the length, the first ones of the file. In
the control it is replaced by a last passage of held-out text, of as many tokens and without an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_schemas.errors import UserError
from tasks.evaluate.prompts.joining import Joined, join, most_that_fit
from tasks.evaluate.prompts.material import Material, sample_seed
from tasks.evaluate.prompts.pieces import encode, encode_each, generation_limit, question_and_answer, text_of
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.qa import QaExample
from tasks.evaluate.prompts.score import score_output

OUTPUT_TOKENS = 100  # Lost in the Middle's limit
MAX_FILLERS = 100
OPENING = "Answer the question from the passages below; some of them have nothing to do with it.\n"
QUESTION = "\n\nQuestion: {question}\nAnswer:"


@dataclass(frozen=True)
class _Encoded:
    """A question with its passages as tokens. `numbers[i]` comes before the i-th place."""

    example: QaExample
    front: np.ndarray
    numbers: list[np.ndarray]
    gold: np.ndarray
    passages: list[np.ndarray]
    question: np.ndarray
    answer: np.ndarray

    @property
    def is_forced(self) -> bool:
        return len(self.example.answers) == 1

    @property
    def max_new_tokens(self) -> int:
        return len(self.answer) if self.is_forced else generation_limit(self.answer, OUTPUT_TOKENS)

    @property
    def num_tokens(self) -> np.ndarray:
        """Tokens of prompt and output with 0, 1, 2, … passages beside the gold one."""
        fixed = len(self.front) + len(self.gold) + len(self.question) + max(len(self.answer), self.max_new_tokens)
        numbers, passages = np.cumsum([len(n) for n in self.numbers]), np.cumsum([0, *map(len, self.passages)])
        return fixed + numbers + passages


def document_qa_prompts(length: int, material: Material) -> list[TaskPrompt]:
    """Each sample is another question; a seeded choice of them, the same at every length."""
    chosen = _chosen(material)
    return [prompt for sample, one in enumerate(chosen) for prompt in _sample_prompts(length, sample, one, material)]


def shortest_document_qa(material: Material) -> int:
    """The tokens for a passage at each depth."""
    return max(int(one.num_tokens[material.num_depths - 1]) for one in _chosen(material))


def _chosen(material: Material) -> list[_Encoded]:
    if len(material.qa) < material.num_samples:
        raise UserError(
            f"evaluation.qa_file has {len(material.qa)} questions and evaluation.num_samples asks for {material.num_samples}: "
            "add questions or lower num_samples."
        )
    order = np.random.default_rng(sample_seed(material.seed, "document_qa", 0, 0)).permutation(len(material.qa))
    return [_encode(material.qa[i], material) for i in order[: material.num_samples].tolist()]


def _encode(example: QaExample, material: Material) -> _Encoded:
    if len(example.passages) < material.num_depths - 1:
        raise UserError(
            f"Line {example.line} of evaluation.qa_file has {len(example.passages)} passages beside the gold one, too few for "
            f"{material.num_depths} different places: add passages or lower evaluation.num_depths."
        )
    tokenizer = material.tokenizer
    texts = [f" {text}\n" for text in (example.gold, *example.passages)]
    gold, *passages = encode_each(texts, tokenizer)
    numbers = encode_each([f"\nPassage [{number}]" for number in range(1, len(texts) + 1)], tokenizer)
    question, answer = question_and_answer(
        QUESTION.format(question=example.question), f" {example.answers[0]}", tokenizer, material.chat
    )
    front = np.concatenate([material.haystack.bos, encode(OPENING, tokenizer)])
    return _Encoded(example, front, numbers, gold, passages, question, answer)


def _sample_prompts(length: int, sample: int, one: _Encoded, material: Material) -> Iterator[TaskPrompt]:
    num_others = int(np.searchsorted(one.num_tokens, length, side="right")) - 1
    if num_others < material.num_depths - 1:
        raise _too_long(one, material, length)
    seed = sample_seed(material.seed, "document_qa", length, sample)
    filler = _filler(one, material, np.random.default_rng(seed))
    output = max(len(one.answer), one.max_new_tokens)

    def needed(count: int) -> int:
        return output + max(len(joined.tokens) for joined in _joined(one, one.passages[:count], filler, material))

    num_others = most_that_fit(num_others, material.num_depths - 1, len(one.passages), length, needed)
    if num_others < material.num_depths - 1:
        raise _too_long(one, material, length)
    control, *prompts = _joined(one, one.passages[:num_others], filler, material)
    for depth, joined in zip(material.depths, prompts, strict=True):
        yield TaskPrompt(
            task="document_qa",
            length=length,
            depth=depth,
            position=joined.starts[0] / len(joined.tokens),
            sample=sample,
            seed=seed,
            tokens=joined.tokens,
            golds=one.example.answers,
            answer=joined.answer,
            control=control.tokens,
            is_forced=one.is_forced,
            max_new_tokens=one.max_new_tokens,
        )


def _too_long(one: _Encoded, material: Material, length: int) -> UserError:
    return UserError(
        f"Line {one.example.line} of evaluation.qa_file needs {one.num_tokens[material.num_depths - 1]} tokens for its "
        f"question and {material.num_depths} passages, more than {length}: shorten its passages, lower evaluation.num_depths "
        "or give longer evaluation.task_lengths."
    )


def _filler(one: _Encoded, material: Material, rng: np.random.Generator) -> np.ndarray:
    """Held-out text of as many tokens as the gold passage, without any of the answers, which the control must not give away."""
    for _ in range(MAX_FILLERS):
        filler = material.haystack.excerpt(len(one.gold), rng).token_ids
        text = text_of(filler, material.tokenizer)
        if not score_output(text, one.example.answers):
            return filler
    raise UserError(
        f"Line {one.example.line} of evaluation.qa_file: {MAX_FILLERS} excerpts of the held-out text all contain one of "
        "`answers`, so no control can be made: give answers that are less common, or remove the line."
    )


def _joined(one: _Encoded, others: list[np.ndarray], filler: np.ndarray, material: Material) -> list[Joined]:
    """The control, and the prompt of each depth, with a mark where the gold passage begins."""
    places = [(len(others), filler)] + [(round(depth * len(others)), one.gold) for depth in material.depths]
    return [_with_passage(one, others, place, passage, material) for place, passage in places]


def _with_passage(one: _Encoded, others: list[np.ndarray], place: int, passage: np.ndarray, material: Material) -> Joined:
    shown = [*others[:place], passage, *others[place:]]
    pieces = [one.front, *(piece for pair in zip(one.numbers, shown, strict=False) for piece in pair)]
    mark = sum(map(len, pieces[: 2 * place + 2]))
    return join([*pieces, one.question], one.answer, material.tokenizer, [mark])
