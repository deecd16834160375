"""Makes the prompts of a task at a length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from data_schemas.errors import UserError
from data_schemas.evaluation_params import TaskName
from tasks.evaluate.prompts.associative_needle import association_prompts, shortest_associations
from tasks.evaluate.prompts.common_words import common_word_prompts, shortest_common_words
from tasks.evaluate.prompts.document_qa import document_qa_prompts, shortest_document_qa
from tasks.evaluate.prompts.facts_in_text import fact_prompts, shortest_facts
from tasks.evaluate.prompts.frequent_words import frequent_word_prompts, shortest_frequent_words
from tasks.evaluate.prompts.graph_walk import graph_prompts, shortest_graph
from tasks.evaluate.prompts.hidden import PartsMaker, hidden_prompts, shortest_hidden
from tasks.evaluate.prompts.key_value import (
    key_value_prompts,
    short_key_value_prompts,
    shortest_key_value,
    shortest_short_key_value,
)
from tasks.evaluate.prompts.material import Material
from tasks.evaluate.prompts.niah import multikey_parts, multiquery_parts, multivalue_parts, single_parts
from tasks.evaluate.prompts.own_corpus import corpus_prompts, shortest_corpus
from tasks.evaluate.prompts.passkey import passkey_parts
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.spaced_evidence import shortest_spaced, spaced_prompts
from tasks.evaluate.prompts.variable_tracking import shortest_variables, variable_prompts


@dataclass(frozen=True)
class _Task:
    make: Callable[[int, Material], list[TaskPrompt]]
    shortest: Callable[[Material], int]


def make_prompts(task: TaskName, length: int, material: Material) -> list[TaskPrompt]:
    """All prompts of a task at one length, a pure function of the arguments and so the same for every model.

    They are ordered by sample. Where the gold is swept over the depths, a sample's depths follow each other, ascending, and share
    seed, haystack and control.

    Raises:
        UserError: the prompt does not fit `length`, or there is too little text.
    """
    return _TASKS[task].make(length, material)


def shortest(task: TaskName, material: Material) -> int:
    """The smallest length, in tokens, that always fits."""
    return _TASKS[task].shortest(material)


def usable_lengths(
    task: TaskName, requested: Sequence[int] | None, default: Sequence[int], material: Material
) -> tuple[int, ...]:
    """The lengths of a task, ascending: as requested, else those of `default` that are long enough.

    Raises:
        UserError: a requested length, or every default one, is too short.
    """
    least = shortest(task, material)
    lengths = sorted(set(requested or default))
    if not requested:
        lengths = [n for n in lengths if n >= least] or lengths[-1:]
    if lengths[0] < least:
        raise UserError(
            f"{lengths[0]} tokens are too few for a prompt of the task {task}: "
            f"give evaluation.task_lengths of at least {least}, or leave {task} out of evaluation.tasks."
        )
    return tuple(lengths)


def _hidden(task: TaskName, parts: PartsMaker) -> _Task:
    return _Task(partial(hidden_prompts, task, parts), partial(shortest_hidden, parts))


_TASKS: dict[TaskName, _Task] = {
    "passkey": _hidden("passkey", passkey_parts),
    "key_value": _Task(key_value_prompts, shortest_key_value),
    "short_key_value": _Task(short_key_value_prompts, shortest_short_key_value),
    "niah_single": _hidden("niah_single", single_parts),
    "niah_multikey": _hidden("niah_multikey", multikey_parts),
    "niah_multivalue": _hidden("niah_multivalue", multivalue_parts),
    "niah_multiquery": _hidden("niah_multiquery", multiquery_parts),
    "variable_tracking": _Task(variable_prompts, shortest_variables),
    "common_words": _Task(common_word_prompts, shortest_common_words),
    "frequent_words": _Task(frequent_word_prompts, shortest_frequent_words),
    "document_qa": _Task(document_qa_prompts, shortest_document_qa),
    "facts_in_text": _Task(fact_prompts, shortest_facts),
    "associative_needle": _Task(association_prompts, shortest_associations),
    "graph_walk": _Task(graph_prompts, shortest_graph),
    "spaced_evidence": _Task(spaced_prompts, shortest_spaced),
    "own_corpus": _Task(corpus_prompts, shortest_corpus),
}
