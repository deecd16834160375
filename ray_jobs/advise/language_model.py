"""A loaded model that answers the calls of the advice, by the evaluation's own generation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from ray_jobs.evaluate.generation import generate, generate_scored
from ray_jobs.evaluate.measure import end_ids
from ray_jobs.evaluate.scoring import Window, score_windows
from tasks.advise.calls import Call, Reply


@dataclass(frozen=True)
class LanguageModel:
    """`model`: a causal language model of transformers, in evaluation mode. Calls go one by one, so their seconds are a request's."""

    model: Any
    tokenizer: Any
    arm: str
    batch_tokens: int

    def ask(self, call: Call) -> Reply:
        """Greedy answer, and the wanted log-probabilities. The seconds do not include weighing the own answer.

        UserError for log-probabilities that are not finite.
        """
        started = time.perf_counter()
        ids, right = self._answered(call)
        seconds = time.perf_counter() - started
        own = self._own(call.prompt, ids) if call.weighs_itself and len(ids) else None
        return Reply(
            text=self.tokenizer.decode(ids, skip_special_tokens=True),
            num_tokens=len(ids),
            seconds=seconds,
            own_logprob=own,
            answer_logprob=right,
        )

    def _answered(self, call: Call) -> tuple[np.ndarray, float | None]:
        how: dict[str, Any] = {"eos_ids": end_ids(self.model, self.tokenizer), "batch_tokens": self.batch_tokens}
        if not len(call.answer):
            ((_, ids),) = generate(self.model, [call.prompt], [call.max_new_tokens], **how)
            return ids, None
        ((_, ids, scores),) = generate_scored(self.model, [call.prompt], [call.answer], [call.max_new_tokens], **how)
        return ids, self._mean(scores.logprobs)

    def _own(self, prompt: np.ndarray, ids: np.ndarray) -> float:
        window = Window(np.concatenate([prompt, ids]).astype(np.int32), len(ids))
        ((_, scores),) = score_windows(self.model, [window], batch_tokens=self.batch_tokens)
        return self._mean(scores.logprobs)

    def _mean(self, logprobs: np.ndarray) -> float:
        mean = float(logprobs.mean())
        if not np.isfinite(mean):
            raise UserError(f"The {self.arm} model gives log-probabilities that are not finite: check its weights.")
        return mean
