"""A question with its passages as a retriever ranks them, to be asked under several orders of the passages.

    BOS │ opening │ [1] passage │ [2] passage │ … │ question │ (answer)

The labels number the places, not the passages, so all orders of a question take the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.evaluate.prompts.hidden import GOLDEN_RATIO
from tasks.evaluate.prompts.joining import join
from tasks.evaluate.prompts.material import sample_seed
from tasks.evaluate.prompts.prompt import RANKED_TASK, TaskPrompt


@dataclass(frozen=True, kw_only=True)
class RankedQuestion:
    """`passages` best ranked first, the gold one at `gold_rank`, counted from 1; `labels[i]` comes before place i. All int32 token ids.

    The gold begins in token `gold_at` of its passage. `sample` is the same question at every length, with more passages where
    they fit.
    """

    length: int
    sample: int
    seed: int
    front: np.ndarray
    labels: tuple[np.ndarray, ...]
    passages: tuple[np.ndarray, ...]
    gold_rank: int
    gold_at: int
    question: np.ndarray
    answer: np.ndarray
    golds: tuple[str, ...]
    is_forced: bool
    max_new_tokens: int

    @property
    def num_tokens(self) -> int:
        """Of the prompt, by the sizes of its pieces."""
        return sum(map(len, (self.front, *self.labels, *self.passages, self.question)))

    def prompt(self, order: Sequence[int], tokenizer: Any) -> TaskPrompt:
        """The prompt with the passage of rank `order[i]` at place i; `order` is a permutation of 1..n."""
        if sorted(order) != list(range(1, len(self.passages) + 1)):
            raise ValueError(f"{list(order)} is not an order of {len(self.passages)} passages")
        pieces = [self.front]
        gold_start = written = len(self.front)
        for label, rank in zip(self.labels, order, strict=True):
            passage = self.passages[rank - 1]
            if rank == self.gold_rank:
                gold_start = written + len(label) + self.gold_at
            pieces += [label, passage]
            written += len(label) + len(passage)
        joined = join([*pieces, self.question], self.answer, tokenizer, [gold_start])
        return TaskPrompt(
            task=RANKED_TASK,
            length=self.length,
            depth=None,
            position=joined.starts[0] / len(joined.tokens),
            sample=self.sample,
            seed=self.seed,
            tokens=joined.tokens,
            golds=self.golds,
            answer=joined.answer,
            control=None,
            is_forced=self.is_forced,
            max_new_tokens=self.max_new_tokens,
        )


@dataclass(frozen=True)
class RankedSet:
    """Questions by length, ascending, each sample at most once a length; `left_out` says why there are none."""

    questions: Mapping[int, tuple[RankedQuestion, ...]]
    left_out: str = ""


def rank_quantiles(num_samples: int, seed: int) -> np.ndarray:
    """Where in the distribution of ranks each sample's gold passage lies, float64 [samples] in [0, 1).

    Successive ones differ by the golden ratio, which fills the interval evenly for any number of samples.
    """
    offset = np.random.default_rng(sample_seed(seed, f"{RANKED_TASK} ranks", 0, 0)).random()
    quantiles: np.ndarray = (offset + GOLDEN_RATIO * np.arange(num_samples)) % 1
    return quantiles


def gold_rank(quantile: float, num_passages: int) -> int:
    """The gold passage's rank, from 1: the quantile of P(rank) proportional to 1 / rank, over 1..`num_passages`.

    Mostly high and not always first, as with a retriever. With more passages the rank of a quantile never improves.
    """
    cumulative = np.cumsum(1 / np.arange(1, num_passages + 1))
    return min(num_passages, 1 + int(np.searchsorted(cumulative, quantile * cumulative[-1], side="right")))
