"""Summaries by a served model: budgets, where sentences come from, what was dropped, both forms, and runs that are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from tasks.reorder.summaries import Summary, notes_on, summarise
from tests import PYTHONPATH
from tests.tasks.reorder.model_server import model_server
from tests.waiting import wait_until

TOWNS = ("Arden", "Brill", "Corfe", "Deal", "Eyam", "Frome", "Goole", "Hythe")
TEXT = "\n\n".join(
    f"The town of {town} has {1100 + 37 * i} people. It is quiet there and little happens all year." for i, town in enumerate(TOWNS)
)  # fmt: skip


def count(text: str) -> int:
    return len(text.split())


def first_sentences(prompt: str) -> str:
    """A model of known behaviour: it keeps the first sentence of each paragraph of what it is given, and the draft."""
    given = prompt.split("Part:\n" if "Part:\n" in prompt else "Summaries:\n")[1] if "Next part" not in prompt else ""
    if not given:
        draft, given = prompt.split("so far:\n")[1].split("\n\nNext part:\n")
        return f"{draft}\n\n{first_sentences(f'Part:{chr(10)}{given}')}".strip()
    body = given.rsplit("\n\nSummary:", 1)[0]
    return "\n\n".join(block.split(". ")[0].rstrip(".") + "." for block in body.split("\n\n") if block.strip())


def summary_of(model: object, **settings: object) -> Summary:
    given = {"count_tokens": count, "window_tokens": 160, "level_tokens": (12, 24, 40)} | settings
    return summarise(TEXT, model, **given)  # type: ignore[arg-type]


@pytest.mark.usefixtures("servers")
def test_every_sentence_leads_back_to_its_chunk_and_characters() -> None:
    with model_server(first_sentences) as served:
        summary = summary_of(served.url, chunk=lambda text: text.split("\n\n"))
    assert len(summary.sentences) == 3  # level 1 has 24 tokens, and a sentence 7
    for sentence in summary.sentences:
        assert summary.text[sentence.start : sentence.end] == sentence.text
        (source,) = sentence.sources
        assert TEXT[source.start : source.end] == sentence.text
        assert source.chunk == TEXT[: source.start].count("\n\n")
        assert source.support == sentence.support == 1


def test_what_a_level_drops_is_counted() -> None:
    summary = summary_of(lambda prompt, tokens: first_sentences(prompt), chunk=lambda text: text.split("\n\n"))
    process, *rest = summary.dropped
    assert (process.num_parts, process.tokens_before, process.tokens_after) == (8, 8 * 16, 8 * 7)
    assert process.numbers.dropped == process.names.dropped == process.numbers.added == ()
    assert process.num_cut_tokens == 0
    dropped = {number for report in rest for number in report.numbers.dropped}
    assert len(dropped) == 8 - len(re.findall(r"\d+", summary.text)) > 0
    assert sum(report.num_cut_tokens for report in rest) > 0
    assert process.sentence == (
        "Level 0: 8 parts, 128 tokens became 56; dropped 0 of 8 numbers and 0 of 8 names, added 0 and 0."
    )


def test_an_invented_number_and_an_unsupported_sentence_are_seen() -> None:
    summary = summary_of(lambda prompt, tokens: "Arden has 99 wolves.", window_tokens=1000)
    assert summary.dropped[0].numbers.added == ("99",)
    assert 0 < summary.sentences[0].support < 0.7
    unrelated = summary_of(lambda prompt, tokens: "Zebras graze.", window_tokens=1000)
    assert unrelated.sentences[0].sources == ()


def test_two_chunks_behind_one_sentence_are_both_named() -> None:
    text = "Arden has 1100 people.\n\nBrill has 1137 horses."
    summary = summarise(
        text, lambda prompt, tokens: "Arden: 1100 people; Brill: 1137 horses.", count_tokens=count, window_tokens=200,
        chunk=lambda text: text.split("\n\n"),
    )  # fmt: skip
    assert sorted(source.chunk for source in summary.sentences[0].sources) == [0, 1]


def test_no_call_exceeds_the_window_and_every_part_keeps_its_budget() -> None:
    prompts: list[tuple[str, int]] = []

    def wordy(prompt: str, tokens: int) -> str:
        prompts.append((prompt, tokens))
        return "word " * 200

    for form in ("map_reduce", "refine"):
        prompts.clear()
        summary = summary_of(wordy, form=form, window_tokens=200)
        assert all(count(prompt) + tokens <= 200 for prompt, tokens in prompts)
        budgets = (12, 24, 40) if form == "map_reduce" else (12,)
        for level, parts in enumerate(summary.result.levels):
            assert all(part.num_tokens <= budgets[min(level, len(budgets) - 1)] for part in parts)


@pytest.mark.usefixtures("servers")
def test_refine_reads_piece_after_piece_and_keeps_its_places() -> None:
    with model_server(first_sentences) as served:
        summary = summary_of(served.url, form="refine", level_tokens=(70,), window_tokens=200)
        assert len(served.asked) == len(summary.result.chunks) > 2
    assert [s.text for s in summary.sentences] == [f"The town of {t} has {1100 + 37 * i} people." for i, t in enumerate(TOWNS)]
    assert all(TEXT[s.sources[0].start : s.sources[0].end] == s.text for s in summary.sentences)
    assert len(summary.dropped) == len(summary.result.chunks)


def test_notes_on_a_question_carry_it_into_every_call() -> None:
    prompts: list[str] = []
    summary_of(
        lambda prompt, tokens: prompts.append(prompt) or "a note", instructions=notes_on("Who {really} won?"), window_tokens=200
    )
    assert prompts
    assert all("Question: Who {really} won?" in prompt for prompt in prompts)


def test_a_window_too_short_for_the_budgets_is_said_before_any_call() -> None:
    with pytest.raises(UserError, match=r"A window of 60 tokens leaves 0 for text .* but 80 are needed"):
        summary_of(lambda prompt, tokens: pytest.fail("called"), window_tokens=60)
    with pytest.raises(UserError, match="The budget of level 0 is 0 tokens"):
        summary_of(lambda prompt, tokens: "", level_tokens=(0, 5))


RUN = """
import sys
from pathlib import Path
from tasks.reorder.summaries import summarise
given = {"count_tokens": lambda text: len(text.split()), "window_tokens": 160, "level_tokens": (12, 24, 40)}
given |= {"folder": Path(sys.argv[2]), "chunk": lambda text: text.split("\\n\\n")}
print(summarise(sys.argv[3], sys.argv[1], **given).text)
"""


@pytest.mark.usefixtures("servers")
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    with model_server(first_sentences) as served:
        command = [sys.executable, "-c", RUN, served.url, str(tmp_path / "kept"), TEXT]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        wait_until(lambda: len(served.asked) >= 4, "four questions", process)
        served.may_answer.clear()
        wait_until(lambda: len(list((tmp_path / "kept").glob("*/[!.]*"))) >= len(served.asked) - 1, "answers on disk", process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        num_kept = len(list((tmp_path / "kept").glob("*/[!.]*")))
        assert num_kept >= 3
        asked_before = len(served.asked)
        served.may_answer.set()
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        again = served.asked[asked_before:]
        kept_prompts = [asked["prompt"] for asked in served.asked[:num_kept]]
        assert not [asked for asked in again if asked["prompt"] in kept_prompts]
        total = num_kept + len(again)
        fresh = summary_of(served.url, chunk=lambda text: text.split("\n\n"))
    assert ran.stdout.strip() == fresh.text
    assert total == len({asked["prompt"] for asked in served.asked})


def test_answers_before_a_failure_are_kept_and_said(tmp_path: Path) -> None:
    calls: list[str] = []
    broken = True

    def model(prompt: str, tokens: int) -> str:
        if broken and "Eyam" in prompt:
            raise UserError("The model went away.")
        calls.append(prompt)
        return first_sentences(prompt)

    given = {"folder": tmp_path, "name": "mine", "chunk": lambda text: text.split("\n\n")}
    with pytest.raises(UserError, match=r"The model went away\. 4 answers are kept in .*; the next run goes on from them\."):
        summary_of(model, **given)
    broken = False
    summary = summary_of(model, **given)
    assert len(calls) == len(set(calls))
    calls.clear()
    assert summary_of(model, **given).text == summary.text
    assert not calls
    summary_of(model, **given | {"name": "another"})
    assert calls


def test_answers_of_a_model_without_a_name_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be told from those of another model: give the model a `name`"):
        summary_of(lambda prompt, tokens: pytest.fail("called"), folder=tmp_path)
    assert not list(tmp_path.iterdir())
