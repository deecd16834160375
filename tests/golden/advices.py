"""Replies of a fixed base, and a whole advice over a formula: over a model, the noise of a log-probability could change a rank."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_schemas.params import AdviseParams, ChunkingParams, ModelParams, PriceParams
from ray_jobs.advise.asking_units import ask_both, outcomes
from ray_jobs.advise.language_model import LanguageModel
from tasks.advise.advice import Measured, Origin, make_advice, with_routes
from tasks.advise.answering import Answering
from tasks.advise.calls import Call, Reply
from tasks.advise.plan import plan_ways
from tasks.advise.prices import Prices
from tasks.advise.prompting import Prompting
from tasks.advise.questions import make_questions
from tasks.advise.retrieval import Passages
from tasks.advise.rows import AnswerRow, answer_row
from tasks.model.base_model import load_base, load_tokenizer
from tests.golden.inputs import prose, write_base

PARAMS = AdviseParams(
    arms=("base", "scaling_only"), questions_per_kind=3, passage_tokens=200, chunk_tokens=(64,), overlaps=(0.0, 0.25),
    prices=PriceParams(prompt_per_million=1.0, answer_per_million=4.0),
)  # fmt: skip
CHUNKING = ChunkingParams(segmenter="fast")


def output(folder: Path) -> Any:
    model = ModelParams(base=str(write_base(folder / "base", window=512)), target_length=1024)
    tokenizer = load_tokenizer(model)
    prompting = Prompting(tokenizer, None, answer_tokens=8, note_tokens=16)
    texts = [(f"d{number}", prose(number, 60)) for number in range(4)]
    questions = make_questions(texts, per_kind=3, seed=0, count_tokens=prompting.num_tokens, max_tokens=800).asked
    planned = plan_ways(PARAMS, CHUNKING, {"base": 512, "scaling_only": 1024}, 512, longest_document=800, shortest_document=600)
    asked = _Formula(tokenizer)
    answering = Answering(asked, prompting, Passages(tokenizer, CHUNKING, None), weighs_itself=True)
    rows: dict[str, list[AnswerRow]] = {way.name: [] for way in planned.ways}
    for question in questions:
        for way in planned.ways:
            both = outcomes(ask_both(answering, way, question, True))
            rows[way.name].append(answer_row(way.name, question, *both))
    measured = with_routes(Measured(planned.ways, rows, planned.notes), seed=0)
    origin = Origin("d" * 32, None, "documents")
    advice = make_advice(measured, origin, Prices(PARAMS.prices, None), confidence=0.95, seed=0)
    language_model = LanguageModel(load_base(model).eval(), tokenizer, "base", 4096)
    calls = [prompting.answering("The bridge is old.", "What is old?", "the bridge", weighs_itself=True)]
    calls += [prompting.noting(texts[0][1][:200], question.question) for question in questions[:2]]
    replies = [asdict(reply) | {"seconds": 0} for reply in language_model.ask_all(calls)]
    calls_hash = hashlib.sha256(" ".join(asked.digests).encode()).hexdigest()
    return {"calls": [len(asked.digests), calls_hash], "advice": advice.model_dump(mode="json"), "replies": replies}


class _Formula:
    """Answers right where the call's digest says so."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.digests: list[str] = []

    def ask_all(self, calls: Any) -> list[Reply]:
        return [self._reply(call) for call in calls]

    def _reply(self, call: Call) -> Reply:
        self.digests.append(call.digest)
        number = int(call.digest[:4], 16) / 0xFFFF
        right = self._tokenizer.decode(call.answer) if len(call.answer) else "note"
        text = right if number < 0.5 else "nothing"
        return Reply(text, 3, number, own_logprob=-number, answer_logprob=-2 * number)
