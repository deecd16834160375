"""The score of an output."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.evaluate.prompts.graph_walk import score_walk
from tasks.evaluate.prompts.prompt import RANKED_TASK, TaskPrompt


def score_output(output: str, golds: Sequence[str]) -> float:
    """Share of `golds` that `output` contains, ignoring case: RULER's `string_match_all`."""
    text = output.casefold()
    return sum(gold.casefold() in text for gold in golds) / len(golds)


def score_prompt(prompt: TaskPrompt, output: str) -> float:
    """The task's score of an output, from 0 to 1.

    Several golds of a question on passages are wordings of one answer: any of them is right, as in *Lost in the Middle*. A graph walk
    is right only with exactly its nodes.
    """
    if prompt.task == "graph_walk":
        return score_walk(output, prompt.golds)
    score = score_output(output, prompt.golds)
    return float(score > 0) if prompt.task in ("document_qa", RANKED_TASK) else score
