"""Questions about the user's own held-out documents, with the passage that answers them among hard negatives.

Questions are made without a model (`corpus_questions`). The negatives are the passages of other documents that BM25 ranks highest for
the question (`hard_negatives`), in random order, as many as fit. The gold passage stands at each depth; the control ends
with the next negative instead. A model with a chat template is asked in it, unless `evaluation.chat_template` is off. A base model
first sees two other questions with their answers, unless the prompt with them does not fit the run's shortest length.

    BOS │ opening (examples) │ [1] passage │ [2] passage │ … │ question │ (answer)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np

from data_schemas.errors import UserError
from tasks.evaluate.prompts.chat import chat_turn
from tasks.evaluate.prompts.corpus_questions import CorpusQuestion, corpus_questions, corpus_texts
from tasks.evaluate.prompts.hard_negatives import Passages
from tasks.evaluate.prompts.joining import Joined, join, most_that_fit
from tasks.evaluate.prompts.material import Material, does_not_fit, sample_seed
from tasks.evaluate.prompts.pieces import encode, encode_each, question_and_answer
from tasks.evaluate.prompts.prompt import TaskPrompt

NUM_SHOTS = 2
PASSAGE_CHARACTERS = (40, 480)  # at least; the more, the longer the shortest length is
_ENCODED_AT_ONCE = 32
OPENING = "Answer the question in the words of one of these passages.\n"
SHOT = "\nQuestion: {question}\nAnswer: {answer}\n"
QUESTION = "\n\nQuestion: {question}\nAnswer:"


@dataclass(frozen=True)
class _Asked:
    """A question, its gold passage and the negatives as tokens. `labels[i]` comes before place i."""

    front: np.ndarray
    labels: list[np.ndarray]
    gold: np.ndarray
    negatives: list[np.ndarray]
    question: np.ndarray
    answer: np.ndarray
    answer_text: str

    @property
    def num_tokens(self) -> np.ndarray:
        """Tokens of prompt and answer with 0, 1, 2, … negatives."""
        labels, negatives = np.cumsum([len(label) for label in self.labels]), np.cumsum([0, *map(len, self.negatives)])
        return len(self.front) + len(self.gold) + len(self.question) + len(self.answer) + labels + negatives


def corpus_prompts(length: int, material: Material) -> list[TaskPrompt]:
    """Each sample is another question, the same at every length."""
    prepared = _prepared(material)
    num_shots = _num_shots(material)
    asked = [_asked(question, num_shots, length, prepared, material) for question in prepared.asked]
    return [prompt for sample, one in enumerate(asked) for prompt in _sample_prompts(length, sample, one, material)]


def shortest_corpus(material: Material) -> int:
    return _shortest(_num_shots(material), material)


def _num_shots(material: Material) -> int:
    if getattr(material.tokenizer, "chat_template", None) and not material.is_plain:
        return 0
    return NUM_SHOTS if _shortest(NUM_SHOTS, material) <= material.form_limit(_shortest(0, material)) else 0


def _shortest(num_shots: int, material: Material) -> int:
    """The tokens for a passage at each depth."""
    prepared = _prepared(material)
    asked = (_asked(question, num_shots, 0, prepared, material) for question in prepared.asked)
    return max(int(one.num_tokens[material.num_depths - 1]) for one in asked)


@dataclass(frozen=True)
class _Prepared:
    """Questions that serve as examples, one for each sample, and the passages."""

    shots: tuple[CorpusQuestion, ...]
    asked: tuple[CorpusQuestion, ...]
    passages: Passages


def _prepared(material: Material) -> _Prepared:
    num_characters = sum(map(len, material.texts)) / max(1, len(material.haystack.token_ids))  # a token
    wanted = material.form_length / (2 * material.num_depths) * num_characters
    least, most = PASSAGE_CHARACTERS
    return _computed(material.texts, material.num_samples, material.seed, int(min(most, max(least, wanted))))


def most_samples(wanted: int, documents: tuple[str, ...], seed: int) -> int:
    """How many of `wanted` samples the documents have questions for."""
    return min(wanted, len(_found(documents, wanted, seed)) - NUM_SHOTS)


def _found(documents: tuple[str, ...], num_samples: int, seed: int) -> list[CorpusQuestion]:
    """Examples first. More samples leave the first ones as they are."""
    rng = np.random.default_rng(sample_seed(seed, "own_corpus", 0, 0))
    return corpus_questions(corpus_texts(documents), NUM_SHOTS + num_samples, rng)


@lru_cache(maxsize=1)
def _computed(documents: tuple[str, ...], num_samples: int, seed: int, num_characters: int) -> _Prepared:
    found = _found(documents, num_samples, seed)
    if len(found) < NUM_SHOTS + num_samples:
        raise UserError(
            f"The held-out documents give {len(found)} questions for the task own_corpus, which needs {NUM_SHOTS} as examples and "
            f"{num_samples} for samples: add documents of prose, lower evaluation.num_samples, or leave own_corpus out of "
            "evaluation.tasks."
        )
    return _Prepared(tuple(found[:NUM_SHOTS]), tuple(found[NUM_SHOTS:]), Passages(corpus_texts(documents), num_characters))


def _asked(question: CorpusQuestion, num_shots: int, length: int, prepared: _Prepared, material: Material) -> _Asked:
    """With more negatives than fit `length`, and no fewer than a prompt and its control need."""
    tokenizer = material.tokenizer
    found = prepared.passages.negatives(question)
    negatives: list[np.ndarray] = []
    while len(negatives) < material.num_depths or sum(map(len, negatives)) < length:
        new = [f" {text}\n" for text in islice(found, _ENCODED_AT_ONCE)]
        if not new:
            break
        negatives += encode_each(new, tokenizer)
    if len(negatives) < material.num_depths:
        raise UserError(
            f"The held-out documents give {len(negatives)} passages beside the one that answers a question of own_corpus, fewer than "
            f"the {material.num_depths} of evaluation.num_depths: add documents, or leave own_corpus out of evaluation.tasks."
        )
    labels = encode_each([f"\n[{number}]" for number in range(1, len(negatives) + 2)], tokenizer)
    (gold,) = encode_each([f" {prepared.passages.gold(question)}\n"], tokenizer)
    front, asking, answer = _framed(question, prepared.shots[:num_shots], material)
    return _Asked(front, labels, gold, negatives, asking, answer, question.answer)


def _framed(
    question: CorpusQuestion, shots: tuple[CorpusQuestion, ...], material: Material
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The text before the passages, the text after them, and the answer."""
    tokenizer, bos = material.tokenizer, material.haystack.bos
    asking = QUESTION.format(question=question.question)
    if chat := material.chat or (None if material.is_plain else chat_turn(tokenizer, bos)):
        front = np.concatenate([chat.opening, encode(OPENING, tokenizer)])
        return front, np.concatenate([encode(asking, tokenizer), chat.reply]), encode(question.answer, tokenizer)
    examples = "".join(SHOT.format(question=shot.question, answer=shot.answer) for shot in shots)
    front = np.concatenate([bos, encode(OPENING + examples, tokenizer)])
    return front, *question_and_answer(asking, f" {question.answer}", tokenizer)


def _sample_prompts(length: int, sample: int, one: _Asked, material: Material) -> Iterator[TaskPrompt]:
    fewest = material.num_depths - 1
    guess = int(np.searchsorted(one.num_tokens, length, side="right")) - 1
    if guess < fewest:
        raise does_not_fit("own_corpus", length)
    seed = sample_seed(material.seed, "own_corpus", length, sample)
    made: dict[int, list[Joined]] = {}

    def needed(num_others: int) -> int:
        made[num_others] = _joined(one, num_others, seed, material)
        return max(len(joined.tokens) + len(joined.answer) for joined in made[num_others])

    num_others = most_that_fit(guess, fewest, len(one.negatives) - 1, length, needed)  # the next one is for the control
    if num_others < fewest:
        raise does_not_fit("own_corpus", length)
    control, *prompts = made[num_others]
    for depth, joined in zip(material.depths, prompts, strict=True):
        yield TaskPrompt(
            task="own_corpus",
            length=length,
            depth=depth,
            position=joined.starts[0] / len(joined.tokens),
            sample=sample,
            seed=seed,
            tokens=joined.tokens,
            golds=(one.answer_text,),
            answer=joined.answer,
            control=control.tokens,
            is_forced=True,
            max_new_tokens=len(joined.answer),
            num_evidence=1,
        )


def _joined(one: _Asked, num_others: int, seed: int, material: Material) -> list[Joined]:
    """The control, and the prompt of each depth, with a mark where the gold passage begins."""
    order = np.random.default_rng(seed).permutation(num_others).tolist()
    others = [one.negatives[i] for i in order]
    places = [(num_others, one.negatives[num_others][: len(one.gold)])]
    places += [(round(depth * num_others), one.gold) for depth in material.depths]
    return [_with_passage(one, others, place, passage, material) for place, passage in places]


def _with_passage(one: _Asked, others: list[np.ndarray], place: int, passage: np.ndarray, material: Material) -> Joined:
    shown = [*others[:place], passage, *others[place:]]
    pieces = [one.front, *(piece for pair in zip(one.labels, shown, strict=False) for piece in pair)]
    mark = sum(map(len, pieces[: 2 * place + 2]))
    return join([*pieces, one.question], one.answer, material.tokenizer, [mark])
