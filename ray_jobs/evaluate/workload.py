"""What every arm is measured on: documents, lengths and prompts, as a pure function of the parameters.

Written once as files among the parts, so that all arms and all workers read the same bytes:

    windows.npz                     first and last tokens of each document
    prompts-TASK-LENGTH.parquet     one row a prompt
    ranked-LENGTH.parquet           one row a question on ranked passages
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.parts import Parts
from ray_jobs.evaluate.given_files import asks_qa, asks_ranked
from ray_jobs.evaluate.key_tokens import TextSpans, read_key_spans
from ray_jobs.evaluate.published_work import (
    NO_TEXTS,
    PublishedTexts,
    perplexities,
    published_prompts,
    published_texts,
    read_texts,
    write_texts,
)
from tasks.evaluate.heldout import HeldOutDocument, read_heldout, select_documents
from tasks.evaluate.perplexity import TargetDocument, evaluation_lengths, target_documents
from tasks.evaluate.power.sample_size import chosen_samples
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.ranked import RankedQuestion, RankedSet
from tasks.tokens.encoding import encoder_of

Prompts = tuple[TaskPrompt, ...]
PromptsOf = Callable[[str, int], Prompts]

_WINDOWS = "windows.npz"
NOT_COMPARED = RankedSet({})


@dataclass(frozen=True)
class Workload:
    """Documents, and `prompts` by task and length; all prompts of a sample follow each other.

    `num_samples`: of each task of evaluation.tasks; None without tasks. `ranked`: the questions that reorder strategies are compared
    on. `doc_ids`: every document whose text is measured or occurs in a prompt. `asks_in_chat`: prompts go through the chat template.
    """

    documents: tuple[TargetDocument, ...]
    lengths: tuple[int, ...]
    prompts: Mapping[tuple[str, int], Prompts] = field(default_factory=dict)
    position_curve: bool = False
    perplexities: tuple[str, ...] = ()
    doc_ids: frozenset[str] = frozenset()
    ranked: RankedSet = NOT_COMPARED
    published: PublishedTexts = NO_TEXTS
    published_left_out: Mapping[str, str] = field(default_factory=dict)
    key_spans: TextSpans = field(default_factory=dict)
    num_samples: int | None = None
    asks_in_chat: bool = False

    def prompts_of(self, task: str, length: int) -> Prompts:
        return self.prompts[task, length]

    def questions_of(self, length: int) -> tuple[RankedQuestion, ...]:
        return self.ranked.questions[length]

    @property
    def all_lengths(self) -> tuple[int, ...]:
        return tuple(sorted({*self.lengths, *(length for _, length in self.prompts)}))

    @property
    def task_lengths(self) -> dict[str, list[int]]:
        """The lengths of each task, ascending."""
        tasks = dict.fromkeys(task for task, _ in self.prompts)
        return {task: sorted(length for name, length in self.prompts if name == task) for task in tasks}


def prepare_workload(
    params: PipelineParams, base_window: int, documents: Path, tokenizer: Any, leave_out: Set[str] = frozenset()
) -> Workload:
    """Documents, lengths and prompts for these parameters.

    Args:
        base_window: the base's own context length, in tokens.
        documents: folder of the `documents` artifact.
        leave_out: ids of held-out documents that are not used, because too much of them was in training.

    Raises:
        UserError: documents are too few or too short; lengths leave no context or are too short for a prompt.
    """
    from tasks.evaluate.prompts.make import make_prompts, usable_lengths

    evaluation = params.evaluation
    lengths = evaluation_lengths(
        evaluation.lengths,
        base_window=base_window,
        target_length=params.model.target_length,
        target_tokens=evaluation.target_tokens,
    )
    longest = max((*lengths, *(evaluation.task_lengths or ())))
    chosen = select_documents(
        read_heldout(documents, min_bytes=max(lengths), leave_out=leave_out),
        tokenizer,
        min_tokens=max(lengths),
        num_documents=evaluation.num_documents,
        haystack_tokens=2 * longest if evaluation.tasks or asks_ranked(params) else 0,
    )
    try:
        targets = target_documents(
            chosen, max_length=max(lengths), num_documents=evaluation.num_documents, num_targets=evaluation.target_tokens
        )
    except UserError as error:
        if leave_out:
            raise UserError(
                f"{error} {len(leave_out)} held-out document(s) are left out, because more than evaluation.max_seen_share "
                f"{evaluation.max_seen_share} of their text is in the training rows (seen_heldout.parquet of the shards lists them)."
            ) from error
        raise
    prompts: dict[tuple[str, int], Prompts] = {}
    if evaluation.tasks or asks_ranked(params):
        material = _material(params, tokenizer, chosen, lengths)
        for task in dict.fromkeys(evaluation.tasks):
            for length in usable_lengths(task, evaluation.task_lengths, lengths, material):
                prompts[task, length] = tuple(sorted(make_prompts(task, length, material), key=lambda prompt: prompt.sample))
    as_published, left_out = published_prompts(evaluation, lengths, tokenizer)
    prompts |= as_published
    asked = perplexities(evaluation)
    heldout = [(document.doc_id, document.token_ids[document.num_leading :]) for document in chosen]
    texts = published_texts(evaluation, lengths, heldout, tokenizer) if asked else NO_TEXTS
    doc_ids = frozenset(document.doc_id for document in chosen)
    ranked = _ranked(params, base_window, lengths, material) if asks_ranked(params) else NOT_COMPARED
    return Workload(
        tuple(targets),
        lengths,
        prompts,
        evaluation.position_curve,
        asked,
        doc_ids,
        ranked,
        texts,
        left_out,
        num_samples=material.num_samples if evaluation.tasks else None,
        asks_in_chat=bool((evaluation.tasks or asks_ranked(params)) and material.chat),
    )


def _ranked(params: PipelineParams, base_window: int, lengths: tuple[int, ...], material: Any) -> RankedSet:
    """Questions at the lengths of the tasks, else at those from the base's window on, where the order of passages matters."""
    from tasks.evaluate.prompts.ranked_facts import fact_questions
    from tasks.evaluate.prompts.ranked_qa import qa_questions

    usual = [length for length in lengths if length >= base_window] or lengths[-1:]
    chosen = sorted(set(params.evaluation.task_lengths or usual))
    make = qa_questions if material.qa else fact_questions
    return make(chosen, params.evaluation.reorder_samples, material)


def _material(params: PipelineParams, tokenizer: Any, documents: list[HeldOutDocument], lengths: tuple[int, ...]) -> Any:
    from tasks.evaluate.prompts.chat import asked_chat
    from tasks.evaluate.prompts.material import Haystack, Material
    from tasks.evaluate.prompts.own_corpus import most_samples
    from tasks.evaluate.prompts.qa import read_qa

    evaluation = params.evaluation
    asks = evaluation.qa_file if asks_qa(params) else None
    qa = read_qa(asks) if asks else ()
    num_samples = chosen_samples(evaluation)
    if evaluation.num_samples is None and "document_qa" in evaluation.tasks:
        num_samples = min(num_samples, len(qa))
    texts = _texts(documents, tokenizer) if "own_corpus" in evaluation.tasks else ()
    if evaluation.num_samples is None and texts:
        num_samples = max(1, most_samples(num_samples, texts, evaluation.seed))
    haystack, chat = Haystack.of(documents), asked_chat(params, tokenizer)
    return Material(
        tokenizer=tokenizer,
        haystack=replace(haystack, bos=chat.opening) if chat else haystack,
        num_depths=evaluation.num_depths,
        num_samples=num_samples,
        seed=evaluation.seed,
        qa=qa,
        form_length=min(evaluation.task_lengths or lengths),
        texts=texts,
        chat=chat,
        is_plain=evaluation.chat_template == "off",
    )


def _texts(documents: list[HeldOutDocument], tokenizer: Any) -> tuple[str, ...]:
    encoder = encoder_of(tokenizer)
    return tuple(encoder.text(document.token_ids[document.num_leading :]) for document in documents)


def by_sample(prompts: Prompts) -> list[list[TaskPrompt]]:
    """The prompts of each sample, which share their beginnings."""
    return [list(group) for _, group in groupby(prompts, key=lambda prompt: prompt.sample)]


def write_workload(workload: Workload, parts: Parts) -> None:
    """Write the workload among the parts, except what an interrupted run has written."""
    from tasks.evaluate.prompts.prompt_files import write_prompts
    from tasks.evaluate.prompts.ranked_files import write_ranked

    for (task, length), prompts in workload.prompts.items():
        name = _prompts_name(task, length)
        if not parts.has(name):
            with parts.writing(name) as path:
                write_prompts(prompts, path)
    for length, questions in workload.ranked.questions.items():
        if not parts.has(name := _ranked_name(length)):
            with parts.writing(name) as path:
                write_ranked(questions, path)
    write_texts(workload.published, parts)
    if parts.has(_WINDOWS):
        return
    documents = workload.documents
    with parts.writing(_WINDOWS) as path, path.open("wb") as file:
        np.savez(
            file,
            doc_ids=np.array([d.doc_id for d in documents], dtype=np.str_),
            heads=np.stack([d.head for d in documents]),
            tails=np.stack([d.tail for d in documents]),
            num_tokens=np.array([d.num_tokens for d in documents], np.int64),
            num_targets=np.array([d.num_targets for d in documents], np.int64),
            has_bos=np.array([d.has_bos for d in documents], bool),
        )


@dataclass(frozen=True)
class KeptWorkload:
    """A workload among the parts; workers read it piece by piece."""

    parts: Parts

    @property
    def documents(self) -> tuple[TargetDocument, ...]:
        return _read_documents(self.parts)

    @property
    def published(self) -> PublishedTexts:
        return read_texts(self.parts)

    @property
    def key_spans(self) -> TextSpans:
        return read_key_spans(self.parts)

    def prompts_of(self, task: str, length: int) -> Prompts:
        return _read_prompts(self.parts, task, length)

    def questions_of(self, length: int) -> tuple[RankedQuestion, ...]:
        return _read_ranked(self.parts, length)


def _prompts_name(task: str, length: int) -> str:
    return f"prompts-{task}-{length}.parquet"


def _ranked_name(length: int) -> str:
    return f"ranked-{length}.parquet"


@lru_cache(maxsize=1)
def _read_documents(parts: Parts) -> tuple[TargetDocument, ...]:
    with parts.reading(_WINDOWS) as path, np.load(path, allow_pickle=False) as kept:
        columns = [kept[name] for name in ("doc_ids", "heads", "tails", "num_tokens", "num_targets", "has_bos")]
    return tuple(
        TargetDocument(str(doc_id), head, tail, int(num_tokens), int(num_targets), bool(has_bos))
        for doc_id, head, tail, num_tokens, num_targets, has_bos in zip(*columns, strict=True)
    )


@lru_cache(maxsize=2)
def _read_prompts(parts: Parts, task: str, length: int) -> Prompts:
    from tasks.evaluate.prompts.prompt_files import read_prompts

    with parts.reading(_prompts_name(task, length)) as path:
        return tuple(read_prompts(path))


@lru_cache(maxsize=1)
def _read_ranked(parts: Parts, length: int) -> tuple[RankedQuestion, ...]:
    from tasks.evaluate.prompts.ranked_files import read_ranked

    with parts.reading(_ranked_name(length)) as path:
        return read_ranked(path)
