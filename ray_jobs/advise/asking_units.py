"""Units of the advice: one way on one question and its control, on workers that hold a model.

Each call's reply is a file among the parts, named by the digest of model, prompt and right answer, written when its batch is done (the
notes on all parts of a document are one). So after a kill of anything, nothing that was kept is asked again; and equal prompts of two ways
are asked once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from data_schemas.errors import UserError
from data_schemas.parts import Parts
from data_schemas.serving_advice import ServingWay
from ray_jobs.advise.language_model import LanguageModel
from ray_jobs.evaluate.arms import ArmModel, loaded_model
from tasks.advise.answering import Answering
from tasks.advise.calls import Asked, Call, Model, Reply
from tasks.advise.prompting import Prompting
from tasks.advise.questions import Question
from tasks.advise.retrieval import Passages
from tasks.evaluate.prompts.chat import asked_chat

QUESTIONS = "questions.json"


@dataclass(frozen=True)
class Unit:
    """One way on the question of this number."""

    way: ServingWay
    question: int


@dataclass(frozen=True)
class KeptModel:
    """A model whose replies are kept among the parts. `load` gives the model where a reply is missing."""

    load: Callable[[], Model]
    arm: str
    parts: Parts

    def ask_all(self, calls: Sequence[Call]) -> list[Reply]:
        missing = {reply_name(self.arm, call): call for call in calls if not self.parts.has(reply_name(self.arm, call))}
        if missing:
            for name, reply in zip(missing, self.load().ask_all(list(missing.values())), strict=True):
                with self.parts.writing(name) as path:
                    path.write_text(json.dumps(asdict(reply)), encoding="utf-8")
        return [self._kept(call) for call in calls]

    def _kept(self, call: Call) -> Reply:
        with self.parts.reading(reply_name(self.arm, call)) as path:
            return Reply(**json.loads(path.read_text(encoding="utf-8")))


def reply_name(arm: str, call: Call) -> str:
    """The file with the reply of a model to a call."""
    return f"reply-{arm}-{call.digest}.json"


@dataclass(frozen=True)
class AskUnit:
    """Asks a unit's question and its control; returns both outcomes as JSON."""

    models: ArmModel
    parts: Parts

    def __call__(self, unit: Unit) -> dict[str, Any]:
        question = read_questions_of(self.parts)[unit.question]
        answering = _answering(self.models, unit.way.arm, self.parts)
        with_control = self.models.params.advise.controls
        return ask_both(answering, unit.way, question, with_control)


def ask_both(answering: Answering, way: ServingWay, question: Question, with_control: bool) -> dict[str, Any]:
    """The outcomes on the document and on its control, as JSON values; the control is null where it is not wanted."""
    right = question.answers[0]
    asked = answering.answer(way, question.document, question.question, right)
    control = answering.answer(way, question.control, question.question, right) if with_control else None
    return {"asked": asdict(asked), "control": asdict(control) if control else None}


def outcomes(kept: dict[str, Any]) -> tuple[Asked, Asked | None]:
    """What `ask_both` returned."""
    return Asked(**kept["asked"]), Asked(**kept["control"]) if kept["control"] else None


def _answering(models: ArmModel, arm: str, parts: Parts) -> Answering:
    params = models.params
    tokenizer = models.tokenizer()

    def load() -> Model:
        return LanguageModel(loaded_model(models, arm), tokenizer, arm, params.evaluation.batch_tokens)

    return Answering(
        model=KeptModel(load, arm, parts),
        prompting=_prompting(models),
        passages=_passages(models),
        weighs_itself="route" in params.advise.ways,
    )


def prompting_of(params: Any, tokenizer: Any) -> Prompting:
    """How these parameters make prompts. UserError for a chat template that is asked for and missing."""
    advise = params.advise
    return Prompting(tokenizer, asked_chat(params, tokenizer), advise.answer_tokens, advise.note_tokens)


@lru_cache(maxsize=1)
def _prompting(models: ArmModel) -> Prompting:
    return prompting_of(models.params, models.tokenizer())


@lru_cache(maxsize=1)
def _passages(models: ArmModel) -> Passages:
    params = models.params
    return Passages(models.tokenizer(), params.chunking, params.advise.embedding_model)


def write_questions(questions: Sequence[Question], parts: Parts) -> None:
    """Among the parts, so that all workers ask the same. UserError if an interrupted run asked others: its answers are by number."""
    if not parts.has(QUESTIONS):
        with parts.writing(QUESTIONS) as path:
            path.write_text(json.dumps([asdict(question) for question in questions]), encoding="utf-8")
    elif read_questions_of(parts) != tuple(questions):
        raise UserError(
            f"The interrupted run in {parts.place} asked other questions than this one: remove that folder, and run again."
        )


@lru_cache(maxsize=1)
def read_questions_of(parts: Parts) -> tuple[Question, ...]:
    """What `write_questions` wrote."""
    with parts.reading(QUESTIONS) as path:
        return tuple(_question(values) for values in json.loads(path.read_text(encoding="utf-8")))


def _question(values: dict[str, Any]) -> Question:
    tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    tuples["evidence"] = tuple((start, end) for start, end in values["evidence"])
    return Question(**values | tuples)


def forget() -> None:
    """Free what this process holds of the last run, but for the model."""
    _prompting.cache_clear()
    _passages.cache_clear()
    read_questions_of.cache_clear()
