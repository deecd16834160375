"""The authors' scores of an output, from 0 to 1 a prompt. Their figures are means over prompts, times 100."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from tasks.evaluate.published.names import MIDDLE_KEYS_PREFIX, MIDDLE_QA_PREFIX, RULER_PREFIX

_CONTROL = re.compile(r"[\x00-\x1f]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ANY_GOLD = ("ruler_qa_1", "ruler_qa_2")


def score_published(task: str, output: str, golds: Sequence[str]) -> float:
    """The score of a published task. ValueError for another task."""
    if task in _ANY_GOLD:
        return string_match_part(output, golds)
    if task.startswith(RULER_PREFIX):
        return string_match_all(output, golds)
    if task.startswith(MIDDLE_QA_PREFIX):
        return best_subspan_em(output, golds)
    if task.startswith(MIDDLE_KEYS_PREFIX):
        return float(golds[0].lower() in output.lower())
    raise ValueError(f"{task} is not a published task")


def string_match_all(output: str, golds: Sequence[str]) -> float:
    """RULER: the share of `golds` that the output contains, ignoring case."""
    text = _cleaned(output)
    return sum(gold.lower() in text for gold in golds) / len(golds)


def string_match_part(output: str, golds: Sequence[str]) -> float:
    """RULER's question answering: whether the output contains any of `golds`, ignoring case."""
    text = _cleaned(output)
    return float(any(gold.lower() in text for gold in golds))


def best_subspan_em(output: str, golds: Sequence[str]) -> float:
    """*Lost in the Middle*: whether the first line contains any of `golds`, both normalised."""
    text = normalize_answer(output.split("\n")[0].strip())
    return float(any(normalize_answer(gold) in text for gold in golds))


def normalize_answer(text: str) -> str:
    """As SQuAD's script: lower case, without ASCII punctuation and English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _cleaned(output: str) -> str:
    return _CONTROL.sub("\n", output.strip()).strip().lower()
