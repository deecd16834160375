"""A served model is asked as the advice was measured: the same prompts, parts and budgets."""

from __future__ import annotations

from typing import Literal

import pytest

from data_schemas.errors import UserError
from data_schemas.params import AdviseParams, ChunkingParams
from data_schemas.serving_advice import ServingWay
from tasks.advise import prompting
from tasks.advise.plan import plan_ways
from tasks.reorder.measured_prompts import answer_prompt, first_line_logprob, measured_notes, note_prompts
from tasks.reorder.serving import HowToServe, how_to_serve
from tests.tasks.reorder.advice_example import advice
from tests.tasks.reorder.test_options import REORDER

QUESTION = "Who {really} won?"


def how(way: Literal["map_reduce", "refine"]) -> HowToServe:
    """As the advice says it where that way is the only one."""
    notes = ServingWay(name=way, way=way, arm="base", window=512, part_tokens=60, note_tokens=8, answer_tokens=24)
    given = advice()
    kept = {"ways": (*given.ways, notes), "advice": (given.advice[0].model_copy(update={"way": way}),)}
    return how_to_serve(REORDER.config, given.model_copy(update=kept))


def count(text: str) -> int:
    return len(text.split())


def test_prompts_are_those_of_the_measurement() -> None:
    assert answer_prompt("A text.", QUESTION) == "A text." + prompting.ANSWER_FORM.format(question=QUESTION)
    prompts, asked = note_prompts(QUESTION), prompting.NOTE_FORM.format(question=QUESTION)
    assert prompts.process.format(text="A text.") == prompts.combine.format(text="A text.") == "A text." + asked
    refined = prompting.REFINE_FORM.format(notes="A note.", text="A text.") + asked
    assert prompts.improve.format(text="A text.", draft="A note.") == refined


@pytest.mark.parametrize("way", ["map_reduce", "refine"])
def test_notes_have_the_parts_and_budgets_that_were_measured(way: Literal["map_reduce", "refine"]) -> None:
    asked: list[tuple[str, int]] = []

    def model(prompt: str, tokens: int) -> str:
        asked.append((prompt, tokens))
        return "word " * 5

    served = how(way)
    assert (served.part_tokens, served.note_tokens, served.answer_tokens) == (60, 8, 24)
    assert served.other_model.startswith("The advice is for the base model: serve that instead")
    text = " ".join(f"w{number}" for number in range(150))
    summary = measured_notes(text, model, QUESTION, served, count_tokens=count)
    assert [count(chunk.text) for chunk in summary.result.chunks] == [60, 60, 30]
    assert {tokens for _, tokens in asked} == {8}
    assert all("Question: Who {really} won?" in prompt for prompt, _ in asked)


@pytest.mark.parametrize(
    ("tokens", "mean"),
    [(["\n", "It is", " 81.", "\nAnd", " more"], -2.0), ([" It", "\n"], -1.0), (["a\n", "b"], -1.0), ([], None)],
)
def test_only_the_first_line_is_weighed(tokens: list[str], mean: float | None) -> None:
    assert first_line_logprob(tokens, [-1.0, -2.0, -3.0, -9.0, -9.0][: len(tokens)]) == mean


def test_every_planned_way_says_how_long_its_answers_are() -> None:
    given = AdviseParams(answer_tokens=9)
    windows = {"base": 512, "fine_tuned": 1024}
    planned = plan_ways(given, ChunkingParams(), windows, 512, longest_document=2000, shortest_document=600)  # type: ignore[arg-type]
    assert {way.way for way in planned.ways} == set(given.ways) - {"route"}
    assert {way.answer_tokens for way in planned.ways} == {9}


def test_another_way_has_no_notes() -> None:
    with pytest.raises(UserError, match="The way chunks has no parts to take notes on"):
        measured_notes("text", "http://127.0.0.1:1/v1", "who?", how_to_serve(REORDER.config), count_tokens=count)
