"""The job trains the stages that the chain trains, and asks the model of the last one."""

from __future__ import annotations

from typing import Any

import pytest

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs import preflight
from ray_jobs.advise import __main__ as job
from ray_jobs.advise import advice_stage
from ray_jobs.finetune import in_stages
from ray_jobs.prepare import job as prepare_job

PARAMS = PipelineParams.model_validate(
    {
        "run_name": "a",
        "corpus": {"sources": ["x"]},
        "model": {"base": "demo", "target_length": 2048, "rope_method": "yarn"},
        "training": {"stages": [{"target_length": 1024}, {"target_length": 2048}]},
    }
)


def test_every_training_stage_is_trained_before_the_model_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def make_shards(params: Any, storage: Any, progress: Any, documents: Any) -> tuple[Any, str]:
        return documents, f"rows {params.model.target_length}"

    def train(params: Any, storage: Any, shards: Any, progress: Any, start: Any) -> str:
        done.append((shards, start))
        return f"checkpoint {params.model.target_length}"

    for name in ("refuse_unadvisable", "refuse_untrainable"):
        monkeypatch.setattr(preflight, name, lambda params: None)
    monkeypatch.setattr(prepare_job, "make_documents", lambda *_: "documents")
    monkeypatch.setattr(in_stages, "make_documents", lambda *_: "documents")
    monkeypatch.setattr(in_stages, "make_shards", make_shards)
    monkeypatch.setattr(in_stages.checkpoint_stage, "run", train)
    monkeypatch.setattr(in_stages.checkpoint_stage, "find_earlier", lambda *_: (None, ""))
    monkeypatch.setattr(advice_stage, "refuse_unadvisable", lambda *given: done.append(given[2:]))
    monkeypatch.setattr(advice_stage, "run", lambda params, storage, documents, checkpoint, progress: (documents, checkpoint))
    assert job._advise(PARAMS, None, None, {}) == ("documents", "checkpoint 2048")  # type: ignore[arg-type]
    assert done == [("documents", "rows 2048"), ("rows 1024", None), ("rows 2048", "checkpoint 1024")]
    with pytest.raises(UserError, match="are for one training stage"):
        job._advise(PARAMS, None, None, {"shards": "shards"})  # type: ignore[arg-type, dict-item]
