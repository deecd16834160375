"""Models of known behaviour, asked by the real code: the advice must be what their behaviour says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import AdviseParams, ChunkingParams, PriceParams
from data_schemas.serving_advice import AdviceArm, QuestionKind, ServingAdvice
from ray_jobs.advise.asking_units import ask_both, outcomes
from tasks.advise.advice import Measured, Origin, make_advice, with_routes
from tasks.advise.answering import Answering
from tasks.advise.plan import plan_ways
from tasks.advise.prices import Prices
from tasks.advise.prompting import Prompting
from tasks.advise.questions import Question, make_questions
from tasks.advise.retrieval import Passages
from tasks.advise.rows import AnswerRow, answer_row
from tests.tasks.advise.known_models import Reader, Sees, everything, first_and_last_quarter, last_tokens

BASE_WINDOW, TARGET, DOCUMENT = 512, 2048, 1600
PARAMS = AdviseParams(
    ways=("full", "chunks", "route"), arms=("base", "scaling_only"), questions_per_kind=16, passage_tokens=256, chunk_tokens=(64,),
    overlaps=(0.0,), orders=("none", "reverse_rank"), answer_tokens=48, controls=False,
)  # fmt: skip
CHUNKING = ChunkingParams(segmenter="fast")
LINE = "The valley is deep and the old bridge is quiet today.\n"  # nothing unique, so facts are planted


@dataclass
class Asking:
    """The questions, and what asks them."""

    tokenizer: PreTrainedTokenizerFast
    questions: tuple[Question, ...]
    params: AdviseParams = PARAMS
    arms: tuple[AdviceArm, ...] = ("base", "scaling_only")

    def measured(self, sees: Sees) -> Measured:
        windows = {arm: BASE_WINDOW if arm == "base" else TARGET for arm in self.arms}
        planned = plan_ways(self.params, CHUNKING, windows, BASE_WINDOW, longest_document=DOCUMENT, shortest_document=DOCUMENT)
        passages = Passages(self.tokenizer, CHUNKING, None)
        prompting = Prompting(self.tokenizer, None, self.params.answer_tokens, self.params.note_tokens)
        model = Reader(sees, self.tokenizer)
        rows: dict[str, list[AnswerRow]] = {way.name: [] for way in planned.ways}
        for question in self.questions:
            for way in planned.ways:
                answering = Answering(model, prompting, passages, weighs_itself="route" in self.params.ways)
                asked, control = outcomes(ask_both(answering, way, question, self.params.controls))
                rows[way.name].append(answer_row(way.name, question, asked, control))
        return Measured(planned.ways, rows, planned.notes)

    def advice(self, sees: Sees) -> ServingAdvice:
        measured = with_routes(self.measured(sees), seed=0)
        return make_advice(measured, Origin("d" * 32, None, "documents"), Prices(PriceParams(), None), confidence=0.95, seed=0)


@pytest.fixture(scope="module")
def asking(tokenizer: PreTrainedTokenizerFast) -> Asking:
    documents = [(f"d{number:02}", LINE * 90) for number in range(12)]
    count = Prompting(tokenizer, None, 24, 48).num_tokens
    made = make_questions(documents, per_kind=PARAMS.questions_per_kind, seed=0, count_tokens=count, max_tokens=DOCUMENT)
    return Asking(tokenizer, made.asked)


def quality(advice: ServingAdvice, way: str, kind: QuestionKind) -> float:
    (result,) = [result for result in advice.results if result.way == way and result.kind == kind]
    return result.quality


def advised(advice: ServingAdvice) -> dict[str, str]:
    """By kind of question, the kind of way."""
    return {one.kind: advice.way(one.way).way for one in advice.advice}


def shown_worse(advice: ServingAdvice, kind: QuestionKind) -> set[str]:
    level = 1 - advice.confidence
    return {one.way for one in advice.comparisons if one.kind == kind and one.p_holm < level and one.high < 0}


def test_a_model_that_sees_everything_needs_its_window_only_for_spread_evidence(asking: Asking) -> None:
    advice = asking.advice(everything)
    assert advised(advice) == {"local": "chunks", "far_apart": "chunks", "spread": "full"}
    assert quality(advice, "full/scaling_only", "spread") == 1
    assert shown_worse(advice, "spread") == {way.name for way in advice.ways if way.way == "chunks"}
    assert advice.overall.startswith("It depends on the question. Extend for spread evidence")
    assert "full on base: no document fits its window of 512 tokens" in advice.note
    assert "the best threshold always asks full/scaling_only" in advice.note, (
        "chunks are as sure of wrong answers, so no threshold saves anything"
    )
    spread = next(one for one in advice.advice if one.kind == "spread")
    assert spread.is_distinguishable
    assert advice.for_kind("spread") == advice.way("full/scaling_only")


def test_a_model_that_sees_the_last_tokens_is_given_chunks(asking: Asking) -> None:
    advice = asking.advice(last_tokens(400))
    assert set(advised(advice).values()) == {"chunks"}
    assert "full/scaling_only" in shown_worse(advice, "local") & shown_worse(advice, "far_apart")
    assert advice.overall.startswith("Chunk:")
    assert "the best threshold never asks full/scaling_only" in advice.note
    assert quality(advice, "chunks/base/bm25/4x64/none", "local") == 1


def test_a_model_that_sees_first_and_last_quarter_needs_the_best_passage_at_an_end(asking: Asking) -> None:
    advice = asking.advice(first_and_last_quarter)
    assert advised(advice)["far_apart"] == "full", "one fact in the first fifth, the other in the last quarter"
    local = advice.for_kind("local")
    assert local is not None
    assert local.retrieval is not None
    assert local.retrieval.order != "reverse_rank"
    assert {"chunks/base/bm25/4x64/reverse_rank", "full/scaling_only"} & shown_worse(advice, "local")
    routes = [way for way in advice.ways if way.way == "route"]
    assert [(way.cheap, way.long) for way in routes] == [("chunks/scaling_only/bm25/4x64/none", "full/scaling_only")]
    assert quality(advice, "route/scaling_only", "far_apart") > 0.8, "unsure where the passages do not tell, so it reads on"
    assert quality(advice, "route/scaling_only", "local") == 1


def test_notes_on_parts_reach_evidence_that_no_window_holds(asking: Asking) -> None:
    params = {
        "ways": ("chunks", "map_reduce", "refine"),
        "arms": ("base",),
        "orders": ("none",),
        "note_tokens": 120,
        "controls": True,
    }
    few = tuple(question for question in asking.questions if question.kind == "far_apart")[:6]
    summing = Asking(asking.tokenizer, few, asking.params.model_copy(update=params), ("base",))
    advice = summing.advice(everything)
    assert quality(advice, "map_reduce/base", "far_apart") == 1
    assert quality(advice, "refine/base", "far_apart") == 1, "a later part is read with the notes on the earlier ones"
    (result,) = [result for result in advice.results if result.way == "map_reduce/base"]
    assert result.control_quality == 0
    assert result.prompt_tokens > DOCUMENT, "it reads all parts, and the notes on them again"
    assert "no difference can be shown: ask about more documents" in advice.note
