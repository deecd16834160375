"""Training is priced by all of its hours, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_schemas.earlier_stages import EARLIER_STAGES
from data_schemas.params import PriceParams
from data_schemas.storage import Artifact, Storage
from tasks.advise.prices import Prices, logged_hours

PRICED: dict[str, Any] = {
    "prompt_per_million": 1.0,
    "answer_per_million": 2.0,
    "training_per_hour": 12.0,
    "amortised_over": 1000,
}


def checkpoint_of(folder: Path, **summary: Any) -> Artifact:
    def make(directory: Path) -> dict[str, Any]:
        (directory / "log.jsonl").write_text('{"seconds": 1800}\n{"seconds": 5400}\n')
        return summary

    params = {"stages": len(summary)}
    return Storage(str(folder)).build("checkpoints", stage="finetune", params=params, code_version=1, parents={}, make=make)


def test_the_log_of_the_last_stage_is_not_the_cost_of_all(tmp_path: Path) -> None:
    alone, staged = checkpoint_of(tmp_path), checkpoint_of(tmp_path, **{EARLIER_STAGES: [{"steps": 3}]})
    given = PriceParams(**PRICED)
    assert logged_hours(alone, "log.jsonl") == 2
    assert Prices(given, logged_hours(alone, "log.jsonl")).of_thousand("fine_tuned", 1000, 0) == 1 + 24
    prices = Prices(given, logged_hours(staged, "log.jsonl"))
    assert prices.of_thousand("fine_tuned", 1000, 0) is None
    assert "give advise.prices.training_hours" in prices.notes(["fine_tuned"])[0]


def test_hours_without_their_price_are_refused() -> None:
    with pytest.raises(ValueError, match="training_hours needs training_per_hour and amortised_over"):
        PriceParams(prompt_per_million=1.0, answer_per_million=2.0, training_hours=3.0)
