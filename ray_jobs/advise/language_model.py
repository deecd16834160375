"""A loaded model that answers the calls of the advice, by the evaluation's own generation."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from ray_jobs.evaluate.generation import generate, generate_scored
from ray_jobs.evaluate.measure import end_ids
from ray_jobs.evaluate.scoring import Window, score_windows
from tasks.advise.calls import Call, Reply
from tasks.advise.rows import first_line


@dataclass(frozen=True)
class LanguageModel:
    """`model`: a causal language model of transformers, in evaluation mode. Calls of one `ask_all` go together, all others one by one."""

    model: Any
    tokenizer: Any
    arm: str
    batch_tokens: int

    def ask_all(self, calls: Sequence[Call]) -> list[Reply]:
        """Greedy answers, and the wanted log-probabilities. The seconds do not include weighing own answers.

        UserError for log-probabilities that are not finite.
        """
        started = time.perf_counter()
        answered = self._answered(calls)
        seconds = (time.perf_counter() - started) / max(1, len(calls))
        replies = []
        for call, (ids, right) in zip(calls, answered, strict=True):
            own = self._own(call.prompt, self._first_line(ids)) if call.weighs_itself and len(ids) else None
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            replies.append(Reply(text, len(ids), seconds, own_logprob=own, answer_logprob=right))
        return replies

    def _answered(self, calls: Sequence[Call]) -> list[tuple[np.ndarray, float | None]]:
        """The generated tokens, int32, and the mean log-probability of the right answer."""
        how: dict[str, Any] = {"eos_ids": end_ids(self.model, self.tokenizer), "batch_tokens": self.batch_tokens}
        found: dict[int, tuple[np.ndarray, float | None]] = {}
        scored = [i for i, call in enumerate(calls) if len(call.answer)]
        plain = [i for i, call in enumerate(calls) if not len(call.answer)]
        limits = [call.max_new_tokens for call in calls]
        prompts = [call.prompt for call in calls]
        of_scored = [prompts[i] for i in scored], [calls[i].answer for i in scored], [limits[i] for i in scored]
        for place, ids, scores in generate_scored(self.model, *of_scored, **how) if scored else ():
            found[scored[place]] = ids, self._mean(scores.logprobs)
        for place, ids in generate(self.model, [prompts[i] for i in plain], [limits[i] for i in plain], **how) if plain else ():
            found[plain[place]] = ids, None
        return [found[i] for i in range(len(calls))]

    def _first_line(self, ids: np.ndarray) -> np.ndarray:
        """The tokens of the first line, which alone counts as the answer; at least one."""

        def line(number: int) -> str:
            return first_line(self.tokenizer.decode(ids[:number], skip_special_tokens=True))

        whole = line(len(ids))
        return ids[: 1 + bisect_left(range(1, len(ids)), True, key=lambda number: line(number) == whole)]

    def _own(self, prompt: np.ndarray, ids: np.ndarray) -> float:
        window = Window(np.concatenate([prompt, ids]).astype(np.int32), len(ids))
        ((_, scores),) = score_windows(self.model, [window], batch_tokens=self.batch_tokens)
        return self._mean(scores.logprobs)

    def _mean(self, logprobs: np.ndarray) -> float:
        mean = float(logprobs.mean())
        if not np.isfinite(mean):
            raise UserError(f"The {self.arm} model gives log-probabilities that are not finite: check its weights.")
        return mean
