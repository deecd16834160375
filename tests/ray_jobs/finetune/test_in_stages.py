"""The jobs train one stage after the other, as the chain does, and search on the model of the stage before."""

from types import SimpleNamespace
from typing import Any

import pytest

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune import in_stages
from tests.heard import texts_into

STAGES = [{"target_length": 1024}, {"target_length": 2048}]


def params_of(stages: list[dict[str, Any]], method: str = "longrope") -> PipelineParams:
    model = {"base": "demo", "target_length": 2048, "rope_method": method}
    return PipelineParams.model_validate(
        {"run_name": "a", "corpus": {"sources": ["x"]}, "model": model, "training": {"stages": stages}}
    )


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was done, in order: (what, length, what it started from)."""
    seen: list[tuple[Any, ...]] = []

    def make_shards(params, storage, progress, documents):
        seen.append(("rows", params.model.target_length))
        return documents, f"rows {params.model.target_length}"

    def search(params, storage, progress, documents, start):
        if not params.searches_rope:
            return params
        seen.append(("search", params.model.target_length, start))
        changes = {"rope_method": "theta", "rope_theta": float(params.model.target_length)}
        return params.model_copy(update={"model": params.model.model_copy(update=changes)})

    def train(params, storage, shards, progress, start):
        seen.append(("train", params.model.target_length, params.model.rope_theta, shards, start))
        return f"checkpoint {params.model.target_length}"

    monkeypatch.setattr(in_stages, "refuse_unsearchable", lambda params, documents: seen.append(("can search", documents)))
    monkeypatch.setattr(in_stages, "make_documents", lambda *_: "documents")
    monkeypatch.setattr(in_stages, "make_shards", make_shards)
    monkeypatch.setattr(in_stages, "with_found_factors", search)
    monkeypatch.setattr(in_stages.checkpoint_stage, "run", train)
    monkeypatch.setattr(in_stages.checkpoint_stage, "find_earlier", lambda *_: (None, ""))
    return seen


def test_every_stage_is_packed_searched_and_trained_from_the_one_before(done: list[tuple[Any, ...]]) -> None:
    params, checkpoint = in_stages.train_in_stages(params_of(STAGES), None, None, {})  # type: ignore[arg-type]
    assert checkpoint == "checkpoint 2048"
    assert params.model.rope_theta == 2048.0
    assert done == [
        ("rows", 2048),
        ("rows", 1024),
        ("can search", "documents"),
        ("search", 1024, None),
        ("train", 1024, 1024.0, "rows 1024", None),
        ("search", 2048, "checkpoint 1024"),
        ("train", 2048, 2048.0, "rows 2048", "checkpoint 1024"),
    ]


def test_a_finished_stage_that_was_computed_in_another_way_is_used_and_named(
    done: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    found = ("checkpoint of two workers", "finetune: trained before with another ray.num_workers")
    monkeypatch.setattr(in_stages.checkpoint_stage, "find_earlier", lambda *_: found)
    in_stages.train_in_stages(params_of(STAGES, "yarn"), None, texts_into(told), {})  # type: ignore[arg-type]
    assert [one for one in done if one[0] == "train"] == [("train", 2048, None, "rows 2048", "checkpoint of two workers")]
    assert told == [found[1]]


def test_a_job_of_one_stage_goes_on_from_what_it_is_given(done: list[tuple[Any, ...]]) -> None:
    alone = params_of([], "yarn")
    in_stages.train_in_stages(alone, None, None, {"shards": "s", "checkpoints": "c"})  # type: ignore[arg-type, dict-item]
    assert done == [("train", 2048, None, "s", "c")]
    with pytest.raises(UserError, match="are for one training stage"):
        in_stages.refuse_given(params_of(STAGES), {"shards": SimpleNamespace()})  # type: ignore[dict-item]


def test_an_evaluation_without_the_fine_tuned_model_plans_with_the_same_factors(done: list[tuple[Any, ...]]) -> None:
    params = in_stages.with_factors_of_last(params_of(STAGES), None, None, "documents", None)  # type: ignore[arg-type]
    assert params.model.rope_theta == 2048.0
    assert [one[0] for one in done] == ["rows", "rows", "can search", "search", "train", "search"]
    done.clear()
    earlier = SimpleNamespace(find=lambda kind, digest: f"{kind}/{digest}")
    trained = SimpleNamespace(digest="d2", manifest=SimpleNamespace(parents={"checkpoint": "d1"}))
    in_stages.with_factors_of_last(params_of(STAGES), earlier, None, "documents", trained)  # type: ignore[arg-type]
    assert done == [("search", 2048, "checkpoints/d1")]
    done.clear()
    emptied = SimpleNamespace(find=lambda kind, digest: None)
    with pytest.raises(UserError, match=r"that d2 goes on from \(d1\) is no longer in the storage"):
        in_stages.with_factors_of_last(params_of(STAGES), emptied, None, "documents", trained)  # type: ignore[arg-type]
    assert done == [], "no search on the base, which would find another RoPE"
