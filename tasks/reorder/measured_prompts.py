"""The prompts that `serving_advice.json` was measured with, so that a served model is asked in the same way.

A base with a chat template was measured with these texts in its template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import cast

from data_schemas.errors import UserError
from tasks.reorder.serving import HowToServe
from tasks.reorder.splitting import CountTokens
from tasks.reorder.summaries import Form, Instructions, Model, Summary, summarise

ANSWER_FORM = "{context}\n\nQuestion: {question}\nAnswer:"
_NOTE_FORM = "{{text}}\n\nQuestion: {question}\nWhat the text above says about the question:"
_NOTES_SO_FAR = "Notes so far: {draft}\n\n"


def answer_prompt(context: str, question: str) -> str:
    """Asks the question about `context`: a document, passages or notes."""
    return ANSWER_FORM.format(context=context, question=question)


def first_line_logprob(tokens: Sequence[str], logprobs: Sequence[float]) -> float | None:
    """Mean log-probability, in nats, of an answer's tokens up to the end of its first line, which alone counts; for `HowToServe.asks_long`.

    Blank lines before the answer belong to it. None where a server gives no tokens or no log-probabilities.
    """
    text, kept = "", list[float]()
    for token, logprob in zip(tokens, logprobs, strict=False):
        text += token
        if kept and "\n" in text.lstrip():
            break
        kept.append(logprob)
    return sum(kept) / len(kept) if kept else None


def note_prompts(question: str) -> Instructions:
    """Ask for a note on what a text says about the question."""
    note = _NOTE_FORM.format(question=question.replace("{", "{{").replace("}", "}}"))
    return Instructions(note, note, _NOTES_SO_FAR + note)


def measured_notes(
    text: str,
    model: str | Model,
    question: str,
    how: HowToServe,
    *,
    count_tokens: CountTokens,
    folder: Path | None = None,
    name: str = "",
) -> Summary:
    """Notes on a document in the parts and budgets of `how`, which advises `map_reduce` or `refine`.

    `model`, `count_tokens`, `folder` and `name` are those of `summarise`. Raises UserError for another way, and as `summarise` does.
    """
    if how.way not in ("map_reduce", "refine") or how.part_tokens is None or how.note_tokens is None:
        raise UserError(f"The way {how.way} has no parts to take notes on: only map_reduce and refine of a measured advice do.")
    prompts = note_prompts(question)
    around = max(count_tokens(prompt.format(text="", draft="")) for prompt in astuple(prompts))
    notes = how.note_tokens * (2 if how.way == "refine" else 1)  # refine reads the notes so far beside a part
    return summarise(
        text,
        model,
        count_tokens=count_tokens,
        window_tokens=how.part_tokens + around + notes,
        level_tokens=(how.note_tokens,),
        form=cast(Form, how.way),
        instructions=prompts,
        folder=folder,
        name=name,
    )
