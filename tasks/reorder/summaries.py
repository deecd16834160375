"""Summaries of texts beyond any window, by any model: a callable, or the URL of a served one.

>>> summary = summarise(book, "http://127.0.0.1:8000/v1", count_tokens=count, window_tokens=8192, folder=Path("summaries"))
>>> summary.text, summary.sentences[0].sources, [report.sentence for report in summary.dropped]

Parts are summarised by themselves and their summaries combined (`map_reduce`), or one summary is improved part by part (`refine`).
Answers are kept in `folder`, so a run that was killed goes on with the first question that has no answer yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from data_schemas.errors import UserError
from tasks.reorder.dropped import LevelReport, dropped
from tasks.reorder.kept_calls import FolderCache
from tasks.reorder.map_reduce import SEPARATOR, MapReduceResult, reduce_levels
from tasks.reorder.provenance import TracedSentence, trace
from tasks.reorder.refine import refine
from tasks.reorder.splitting import CountTokens

# Called with a prompt and the most tokens of the answer; returns the answer.
Model = Callable[[str, int], str]
Form = Literal["map_reduce", "refine"]
_DEFAULT_SHARE = 8  # a summary has this part of the window


@dataclass(frozen=True)
class Instructions:
    """Prompts with {text}, {tokens} and, to improve, {draft}."""

    process: str = (
        "Summarise this part of a longer text in at most {tokens} tokens. Keep names and numbers as they are written.\n\n"
        "Part:\n{text}\n\nSummary:"
    )
    combine: str = (
        "These are summaries of neighbouring parts of one text, in their order. Make one summary of at most {tokens} tokens. Keep names "
        "and numbers as they are written.\n\nSummaries:\n{text}\n\nSummary:"
    )
    improve: str = (
        "Add to the summary what the next part of the text says, in at most {tokens} tokens. Keep names and numbers as they are written."
        "\n\nSummary so far:\n{draft}\n\nNext part:\n{text}\n\nSummary:"
    )


SUMMARY = Instructions()


def notes_on(question: str) -> Instructions:
    """Instead of a summary: notes of what helps to answer a question."""
    asked = question.replace("{", "{{").replace("}", "}}")
    keep = "Keep names and numbers as they are written."
    return Instructions(
        f"Note what this part of a longer text says that helps to answer the question, in at most {{tokens}} tokens. {keep}\n\n"
        f"Question: {asked}\n\nPart:\n{{text}}\n\nNotes:",
        "These are notes on neighbouring parts of one text, in their order. Keep what helps to answer the question, in at most {tokens} "
        f"tokens. {keep}\n\nQuestion: {asked}\n\nNotes:\n{{text}}\n\nNotes:",
        f"Add to the notes what the next part says that helps to answer the question, in at most {{tokens}} tokens. {keep}\n\n"
        f"Question: {asked}\n\nNotes so far:\n{{draft}}\n\nNext part:\n{{text}}\n\nNotes:",
    )


@dataclass(frozen=True)
class Summary:
    """A summary, where each of its sentences comes from, and what each level dropped."""

    text: str
    sentences: tuple[TracedSentence, ...]
    dropped: tuple[LevelReport, ...]
    result: MapReduceResult


def summarise(
    text: str,
    model: str | Model,
    *,
    count_tokens: CountTokens,
    window_tokens: int,
    level_tokens: Sequence[int] = (),
    form: Form = "map_reduce",
    instructions: Instructions = SUMMARY,
    chunk: Callable[[str], Sequence[str]] | None = None,
    num_threads: int = 1,
    folder: Path | None = None,
    name: str = "",
    progress: Callable[[str], None] = lambda message: None,
) -> Summary:
    """Summarise a text of any length with calls that each see at most `window_tokens`, instructions and answer included.

    Args:
        model: the URL of a model with OpenAI's API up to `/v1`, a `tasks.reorder.served.ServedModel` for more settings, or any callable
            that takes a prompt and the most tokens of the answer.
        level_tokens: most tokens of a summary of level 0, 1, …; the last number holds for all further levels. Empty: an eighth of
            the window. `refine` has one budget, the first.
        chunk: cuts the text; by default at paragraphs, lines or sentences, into pieces as long as the window allows.
        num_threads: calls at once; `refine` makes one after another.
        folder: where answers are kept. Another model, instruction or budget never gets them.
        name: says which model a callable is; needed with `folder`, so that no model gets the answers of another.

    Raises UserError if the window is too short for the budgets, `folder` is given without a name for a callable, or the model gives no
    answer; answers so far stay in `folder`.
    """
    ask, name = _model(model, name)
    if folder is not None and not name:
        raise UserError(f"Answers in {folder} cannot be told from those of another model: give the model a `name`.")
    budgets = tuple(level_tokens) or (max(1, window_tokens // _DEFAULT_SHARE),)
    room = _room(instructions, budgets, form, window_tokens, count_tokens)
    identity = json.dumps([name, form, astuple(instructions), budgets, window_tokens])
    cache = None if folder is None else FolderCache(folder / hashlib.sha256(identity.encode()).hexdigest()[:16])

    def call(template: str, texts: Sequence[str], budget: int | None, draft: str = "") -> str:
        tokens = budget or budgets[-1]
        return ask(template.format(text=SEPARATOR.join(texts), tokens=tokens, draft=draft), tokens).strip()

    try:
        if form == "refine":
            result = refine(
                text,
                process=lambda texts, budget: call(instructions.process, texts, budget),
                improve=lambda texts, budget: call(instructions.improve, texts[1:], budget, texts[0]),
                count_tokens=count_tokens,
                window_tokens=room,
                draft_tokens=budgets[0],
                chunk=chunk,
                cache=cache,
                progress=progress,
            )
        else:
            result = reduce_levels(
                text,
                process=lambda texts, budget: call(instructions.process, texts, budget),
                combine=lambda texts, budget: call(instructions.combine, texts, budget),
                count_tokens=count_tokens,
                window_tokens=room,
                chunk=chunk,
                num_threads=num_threads,
                cache=cache,
                progress=progress,
                level_tokens=budgets,
            )
    except UserError as error:
        if cache is None or not cache.num_kept:
            raise
        raise UserError(
            f"{error} {cache.num_kept} answers are kept in {cache.folder}; the next run goes on from them."
        ) from error
    return Summary(result.text, trace(result), dropped(result, count_tokens), result)


def _model(model: str | Model, name: str) -> tuple[Model, str]:
    """The callable, and a name that tells it from other models."""
    if isinstance(model, str):
        try:
            from tasks.reorder.served import ServedModel
        except ImportError as error:
            raise UserError(
                "A model behind a URL needs the packages httpx and tenacity: pip install 'ropeway-reorder[served]'."
            ) from error
        model = ServedModel(model)
    return model, name or str(getattr(model, "identity", ""))


def _room(instructions: Instructions, budgets: Sequence[int], form: Form, window_tokens: int, count_tokens: CountTokens) -> int:
    """Tokens of text that fit a call beside instructions and answer."""
    prompts = [template.format(text="", tokens=max(budgets), draft="") for template in astuple(instructions)]
    room = window_tokens - max(map(count_tokens, prompts)) - max(budgets)
    least = budgets[0] + 1 if form == "refine" else 2 * max(budgets) + count_tokens(SEPARATOR)
    if room < least:
        raise UserError(
            f"A window of {window_tokens} tokens leaves {max(0, room)} for text beside the instructions and an answer of {max(budgets)} "
            f"tokens, but {least} are needed: raise window_tokens, or lower level_tokens."
        )
    return room
