"""What a way costs in money. Nothing is guessed: what has no price has no cost in money, and the advice says so."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_schemas.earlier_stages import EARLIER_STAGES
from data_schemas.params import PriceParams
from data_schemas.serving_advice import AdviceArm
from data_schemas.storage import Artifact


@dataclass(frozen=True)
class Prices:
    """`training_hours`: of the fine-tuned model; None where nobody says them."""

    given: PriceParams
    training_hours: float | None

    def of_thousand(self, arm: AdviceArm, prompt_tokens: float, answer_tokens: float) -> float | None:
        """Money for 1,000 questions with so many tokens each; of the fine-tuned model with its share of the training."""
        given = self.given
        if given.prompt_per_million is None or given.answer_per_million is None:
            return None
        asking = (prompt_tokens * given.prompt_per_million + answer_tokens * given.answer_per_million) / 1000
        if arm != "fine_tuned":
            return asking
        if given.training_per_hour is None or given.amortised_over is None or self.training_hours is None:
            return None
        return asking + 1000 * self.training_hours * given.training_per_hour / given.amortised_over

    def notes(self, arms: Sequence[AdviceArm]) -> list[str]:
        """What the prices leave out."""
        given = self.given
        if not given.are_given:
            return ["No prices were given (advise.prices), so there is no cost in money."]
        if "fine_tuned" not in arms:
            return []
        if given.training_per_hour is None:
            return [
                "The fine-tuned model has no cost in money, because advise.prices has no training_per_hour and amortised_over: the cost of "
                "training is not guessed."
            ]
        if self.training_hours is None:
            return [
                "The fine-tuned model has no cost in money, because its checkpoint does not say how long all of its training took: give "
                "advise.prices.training_hours."
            ]
        return [
            f"Training took {self.training_hours:.3g} hours at {given.training_per_hour:g} {given.currency} each, shared by "
            f"{given.amortised_over:,} questions.".replace("  ", " ")
        ]


def logged_hours(checkpoint: Artifact, log: str) -> float | None:
    """Hours of all steps in a checkpoint's file `log`.

    None where a step's time is not in it, or after earlier training stages, since the log is of the last one alone.
    """
    if EARLIER_STAGES in checkpoint.manifest.summary:
        return None
    try:
        lines = (checkpoint.path / log).read_text(encoding="utf-8").splitlines()
        seconds = [json.loads(line).get("seconds") for line in lines]
    except (OSError, json.JSONDecodeError):
        return None
    if not seconds or any(second is None for second in seconds):
        return None
    return math.fsum(seconds) / 3600
