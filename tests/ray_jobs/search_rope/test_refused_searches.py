"""What cannot be searched is refused in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GptOssConfig

from data_schemas.errors import UserError
from data_schemas.params import ModelParams, PipelineParams
from data_schemas.storage import Storage
from ray_jobs.finetune import in_stages
from ray_jobs.preflight import refuse_untrainable
from ray_jobs.search_rope import search_stage
from ray_jobs.search_rope.before_training import refuse_unsearchable
from ray_jobs.search_rope.critical import measured_critical_theta
from tasks.model.base_model import load_config
from tasks.model.extended import rope_plan_for
from tasks.rope_search.plans import (
    as_search,
    foreseen,
    space_of,
    with_stand_in,
)
from tasks.rope_search.served import publishes_two_lists
from tests.ray_jobs.search_rope.search_example import documents_of, search_params


def scaled_base(folder: Path, tmp_path: Path, **rope: Any) -> None:
    base = Path(shutil.copytree(folder / "base", tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"rope_parameters": {"rope_theta": 1e4} | rope}))


@pytest.mark.parametrize(
    "rope",
    [
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
        {"rope_type": "linear", "factor": 2.0},
    ],
)
def test_no_critical_pair_is_measured_and_nothing_searched_on_scaled_frequencies(
    folder: Path, tmp_path: Path, rope: dict[str, Any]
) -> None:
    scaled_base(folder, tmp_path, **rope)
    params = search_params(tmp_path)
    sentence = f"already scaled by {rope['rope_type']}, and neither factors nor a critical pair .*: choose rope_method auto"
    with pytest.raises(UserError, match=sentence):
        measured_critical_theta(params, tmp_path / "no documents", lambda event: None)
    with pytest.raises(UserError, match=sentence):
        space_of(params)
    assert rope_plan_for(params.model.model_copy(update={"rope_method": "auto"})).method == rope["rope_type"]


def test_no_critical_pair_is_measured_where_no_plan_could_take_it(tmp_path: Path) -> None:
    GptOssConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, max_position_embeddings=128, num_local_experts=2, num_experts_per_tok=1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    ).save_pretrained(tmp_path / "base")  # fmt: skip
    params = search_params(tmp_path)
    served = params.model_copy(update={"model": params.model.model_copy(update={"serve_with": ("vllm",)})})
    with pytest.raises(UserError, match="vllm does not read rope_method theta"):
        measured_critical_theta(served, tmp_path / "no documents", lambda event: None)


def test_a_search_asked_for_by_name_has_parameters_that_fit_together(folder: Path) -> None:
    given = search_params(folder).model_dump(mode="json")
    given["model"] |= {"rope_method": "auto", "rope_length": 768}
    assert as_search(PipelineParams.model_validate(given)) == search_params(folder), (
        "YaRN for more than the target is measured anyway"
    )
    given["model"] |= {"rope_length": None, "rope_theta": 3e5}
    given["evaluation"] |= {"rope_methods": ["theta"]}
    assert as_search(PipelineParams.model_validate(given)) == search_params(folder)
    given["rope_search"] |= {"short_factors": "original"}
    asked = PipelineParams.model_validate(given)
    with pytest.raises(UserError, match=r"no row would train: set training\.short_window_share, or choose equal"):
        as_search(asked)
    given["training"] |= {"short_window_share": 0.25}
    assert publishes_two_lists(as_search(PipelineParams.model_validate(given)))


def test_wrong_input_is_one_sentence_before_anything_is_measured(folder: Path, tmp_path: Path) -> None:
    params = search_params(folder)
    model = params.model
    with pytest.raises(ValueError, match="greater than or equal to 20"):
        search_params(folder, evaluations=0)
    with pytest.raises(ValueError, match="first_samples"):
        search_params(folder, first_samples=4)
    with pytest.raises(UserError, match="nothing to search"):
        space_of(params.model_copy(update={"model": model.model_copy(update={"target_length": 128})}))
    with pytest.raises(UserError, match="nothing to search: remove it"):
        as_search(params.model_copy(update={"model": model.model_copy(update={"rope_factors_file": "x.json"})}))
    longer = params.model_copy(update={"model": model.model_copy(update={"target_length": 4096})})
    storage = Storage(str(tmp_path))
    with pytest.raises(UserError, match=r"No training document has at least 4096 tokens"):
        search_stage.run(longer, storage, documents_of(storage), lambda event: None)
    assert "at most 24 candidates" in foreseen(params)
    assert rope_plan_for(with_stand_in(params).model).method == "ntk", "checks before the search go on with another method"


def test_a_corpus_too_small_for_the_search_of_a_later_stage_is_refused_before_the_first_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = documents_of(Storage(str(tmp_path / "storage")))

    def staged(last: int, method: str = "longrope") -> PipelineParams:
        given = search_params(folder).model_dump(mode="json")
        given["model"] |= {"target_length": last, "rope_method": method}
        given["training"]["stages"] = [{"target_length": 256, "rope_method": "ntk"}, {"target_length": last}]
        return PipelineParams.model_validate(given | {"storage": str(tmp_path / "storage")})

    refuse_unsearchable(staged(384), documents)
    refuse_unsearchable(staged(4096, "yarn"), documents)
    sentence = r"training\.stages\[1\] \(4096 tokens\): No training document has at least 4096 tokens"
    with pytest.raises(UserError, match=sentence):
        refuse_unsearchable(staged(4096), documents)
    monkeypatch.setattr(in_stages, "rows_of_stages", lambda *_: [None, None])
    monkeypatch.setattr(in_stages.checkpoint_stage, "run", lambda *_: pytest.fail("trained"))
    with pytest.raises(UserError, match=sentence):
        in_stages.train_in_stages(staged(4096), Storage(str(tmp_path)), lambda _: None, {"documents": documents})


@pytest.mark.parametrize("check", [space_of, with_stand_in, lambda params: space_of(as_search(params)), refuse_untrainable])
def test_a_base_that_is_already_scaled_by_longrope_is_not_searched(
    folder: Path, tmp_path: Path, check: Callable[[PipelineParams], object]
) -> None:
    base = Path(shutil.copytree(folder / "base", tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    own = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}
    own |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    (base / "config.json").write_text(json.dumps(config | {"rope_parameters": own}))
    with pytest.raises(UserError, match=r"already scaled by longrope, .*: give model\.rope_factors_file"):
        check(search_params(tmp_path))
    for method in ("yarn", "ntk"):
        params = search_params(tmp_path)
        with pytest.raises(UserError, match=r"choose longrope and give model\.rope_factors_file"):
            rope_plan_for(params.model.model_copy(update={"rope_method": method}))


def test_a_base_with_rope_by_layer_type_is_refused(folder: Path) -> None:
    from tasks.rope_search.plans import space_for
    from tests.tiny_models import tiny_config

    params = search_params(folder)
    with pytest.raises(UserError, match="layer type"):
        space_for(tiny_config("gemma3"), params)
    config = load_config(ModelParams(base=str(folder / "base"), target_length=384))
    assert space_for(config, params).num_pairs == 8
