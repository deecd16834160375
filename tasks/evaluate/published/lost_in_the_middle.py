"""*Lost in the Middle* as published (Liu et al. 2023, arXiv 2307.03172; nelson-liu/lost-in-the-middle, MIT).

Prompts come from the authors' data files. A question has 10, 20 or 30 documents, and one file for each place of the gold
document. Key-value prompts have 75, 140 or 300 pairs, and the asked pair is moved to each of the published places.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.evaluation_params import EvaluationParams
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.published.encoding import published_prompt
from tasks.evaluate.published.files import middle_files
from tasks.evaluate.published.names import MIDDLE_KEYS_PREFIX, MIDDLE_PUBLISHED, MIDDLE_QA_PREFIX

OUTPUT_TOKENS = 100
QA_PROMPT = (
    "Write a high-quality answer for the given question using only the provided search results (some of which might be "
    "irrelevant).\n\n{search_results}\n\nQuestion: {question}\nAnswer:"
)
QA_DOCUMENT = "Document [{number}](Title: {title}) {text}"
KEYS_PROMPT = (
    "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n{records}\n\n"
    'Key: "{key}"\nCorresponding value:'
)
KEY_PLACES = {75: (0, 24, 49, 74), 140: (0, 34, 69, 104, 139), 300: (0, 49, 99, 149, 199, 249, 299)}
_QA_FILE = re.compile(r"nq-open-(\d+)_total_documents_gold_at_(\d+)\.")
_KEYS_FILE = re.compile(r"kv-retrieval-(\d+)_keys\.")


@dataclass(frozen=True)
class MiddleText:
    """A prompt's text; `place` of `number` is where the gold stands, from 0."""

    task: str
    sample: int
    place: int
    number: int
    text: str
    golds: tuple[str, ...]
    share: float

    @property
    def depth(self) -> float:
        return self.place / (self.number - 1)


def middle_texts(evaluation: EvaluationParams) -> dict[str, list[MiddleText]]:
    """The prompts' texts by task, ordered by sample and depth.

    Raises:
        UserError: a line of a file does not have the authors' form.
    """
    found: dict[str, list[MiddleText]] = {}
    for file in middle_files(evaluation):
        try:
            for one in _texts(file, evaluation.published_samples):
                found.setdefault(one.task, []).append(one)
        except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
            detail = " ".join(repr(error).split())[:150]
            raise UserError(
                f"evaluation.published_data.lost_in_the_middle: {file.name} does not have the authors' form ({detail}): "
                "give the file of their repository."
            ) from error
    return {task: sorted(found[task], key=lambda one: (one.sample, one.place)) for task in MIDDLE_PUBLISHED if task in found}


def middle_prompts(texts: list[MiddleText], length: int, tokenizer: Any) -> list[TaskPrompt]:
    """The prompts of one task; `length` is the context length that they are measured at."""
    return [
        published_prompt(
            task=one.task,
            length=length,
            sample=one.sample,
            seed=0,
            text=one.text,
            golds=one.golds,
            answer=f" {one.golds[0]}",
            max_new_tokens=OUTPUT_TOKENS,
            tokenizer=tokenizer,
            depth=round(one.depth, 6),
            position=one.share,
        )
        for one in texts
    ]


def qa_text(question: str, documents: list[dict[str, Any]]) -> str:
    """The prompt of a question on `documents`, each with title and text."""
    shown = [QA_DOCUMENT.format(number=i, title=d["title"], text=d["text"]) for i, d in enumerate(documents, start=1)]
    return QA_PROMPT.format(question=question, search_results="\n".join(shown))


def keys_text(records: list[list[str]], key: str) -> str:
    """The prompt that asks for `key` among `records`."""
    pairs = ",\n ".join(f'"{name}": "{value}"' for name, value in records)
    return KEYS_PROMPT.format(records="{" + pairs + "}", key=key)


def _texts(file: Path, num_samples: int | None) -> Iterator[MiddleText]:
    lines = islice(_lines(file), num_samples)
    if named := _QA_FILE.match(file.name):
        number, place = int(named[1]), int(named[2])
        for sample, line in enumerate(lines):
            documents = line["ctxs"]
            if len(documents) != number:
                raise ValueError(f"line {sample + 1} has {len(documents)} documents")
            text = qa_text(line["question"], documents)
            share = text.index(f"Document [{place + 1}](") / len(text)
            yield MiddleText(f"{MIDDLE_QA_PREFIX}{number}", sample, place, number, text, tuple(line["answers"]), share)
        return
    number = int(_KEYS_FILE.match(file.name)[1])  # type: ignore[index]
    for sample, line in enumerate(lines):
        asked, others = [line["key"], line["value"]], list(line["ordered_kv_records"])
        others.remove(asked)
        if len(others) != number - 1:
            raise ValueError(f"line {sample + 1} has {len(others) + 1} pairs")
        for place in KEY_PLACES.get(number, (0, number - 1)):
            text = keys_text([*others[:place], asked, *others[place:]], line["key"])
            share = text.index(f'"{line["key"]}"') / len(text)
            yield MiddleText(f"{MIDDLE_KEYS_PREFIX}{number}", sample, place, number, text, (line["value"],), share)


def _lines(file: Path) -> Iterator[Any]:
    opener: Any = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
