"""The plan that a run's parameters ask for: computed once, and again when what it was computed from has changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import LlamaConfig

from data_schemas.errors import UserError
from data_schemas.params import ModelParams, PipelineParams
from tasks.model import extended
from tasks.model.extended import checkpoint_plan, rope_plan_for


def write_base(folder: Path, window: int) -> None:
    LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=window).save_pretrained(folder)


def test_a_plan_is_computed_once_for_the_same_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base(tmp_path, 512)
    computed = []
    plan_rope = extended.plan_rope
    monkeypatch.setattr(extended, "plan_rope", lambda *args, **named: computed.append(args) or plan_rope(*args, **named))
    model = ModelParams(base=str(tmp_path), target_length=2048, rope_method="yarn")
    plans = [rope_plan_for(model), rope_plan_for(model.model_copy()), rope_plan_for(model)]
    assert len(computed) == 1
    assert {plan.base_window for plan in plans} == {512}
    assert rope_plan_for(model.model_copy(update={"target_length": 4096})).target_length == 4096
    write_base(tmp_path, 1024)
    assert rope_plan_for(model).base_window == 1024
    assert len(computed) == 3


def test_another_factors_file_is_another_plan(tmp_path: Path) -> None:
    write_base(tmp_path, 512)
    file = tmp_path / "factors.json"
    model = ModelParams(base=str(tmp_path), target_length=2048, rope_method="longrope", rope_factors_file=str(file))
    for factor in (4.0, 5.0):
        file.write_text(json.dumps({"short_factor": [factor] * 8, "long_factor": [factor] * 8}))
        assert rope_plan_for(model).rope_parameters["long_factor"] == [factor] * 8


def test_a_checkpoint_does_not_say_who_chose_a_stated_method(tmp_path: Path) -> None:
    write_base(tmp_path, 512)
    model = ModelParams(base=str(tmp_path), target_length=2048, rope_method="yarn")
    stated, planned = checkpoint_plan(model), rope_plan_for(model)
    assert stated.reason == planned.reason.replace("was asked for", "was asked for, or chosen by a search of factors")
    assert replace(stated, reason=planned.reason) == planned
    assert stated.asked_for() == planned
    by_auto = model.model_copy(update={"rope_method": "auto"})
    assert checkpoint_plan(by_auto) == rope_plan_for(by_auto)


def test_a_refusal_is_repeated(tmp_path: Path) -> None:
    write_base(tmp_path, 512)
    for _ in range(2):
        with pytest.raises(UserError, match="gone"):
            rope_plan_for(ModelParams(base=str(tmp_path / "gone"), target_length=2048))


def test_scaling_only_is_scaled_for_the_target_whatever_the_trained_model_is_scaled_for() -> None:
    params = PipelineParams.model_validate(
        {
            "run_name": "longer",
            "storage": "storage",
            "corpus": {"sources": [{"uri": "stdlib:", "licence": "PSF-2.0"}]},
            "model": {"base": "demo", "target_length": 2048, "rope_method": "yarn", "rope_length": 4096},
        }
    )
    assert extended.load_arm(params, "scaling_only").config.rope_parameters["factor"] == 4
    assert extended.extended_config(params.model).rope_parameters["factor"] == 8
