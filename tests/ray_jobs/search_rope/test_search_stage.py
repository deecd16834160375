"""The search as a stage: what is measured is what a plan serves, kills lose and change nothing, wrong input is one sentence."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.rope_search import FACTORS_NAME, LOG_NAME, Form
from data_schemas.storage import Artifact, Storage
from flows.chain import Chain
from ray_jobs.finetune.training.checkpoint import save_adapter
from ray_jobs.finetune.training.lora import trainable
from ray_jobs.finetune.training.training_model import build_model
from ray_jobs.search_rope import search_key, search_stage
from ray_jobs.search_rope.critical import measured_critical_theta
from ray_jobs.search_rope.swapping import Rotation, SwappingModel
from tasks.model.base_model import load_base, load_config
from tasks.model.extended import extended_config, rope_plan_for
from tasks.model.rope_frequencies import default_frequencies
from tasks.rope_search.plans import (
    load_result,
    rivals,
    space_of,
    with_result,
)
from tasks.rope_search.samples import SearchSample
from tasks.rope_search.seeds import LONGER_YARN, closed_form, scaled_length
from tests.ray_jobs.search_rope.search_example import documents_of, search_params
from tests.waiting import wait_until


def test_a_search_ends_with_factors_a_plan_and_a_log_and_is_found_again(searched: tuple) -> None:
    params, search, told = searched
    result = load_result(search)
    assert result.num_evaluations == 24
    assert result.critical_pair in result.critical_scores
    assert {form.name for form in result.forms} >= {"longrope", "yarn", "ntk", "ntk_critical", "linear"}
    lines = [json.loads(line) for line in (search.path / LOG_NAME).read_text().splitlines()]
    assert len(lines) == len({line["key"] for line in lines}) == result.num_passes
    factors = json.loads((search.path / FACTORS_NAME).read_text())
    assert factors["short_factor"] == factors["long_factor"] == list(result.factors)
    assert "on 3 training works, and 3 others decide; at most 24 candidates" in told[0]
    assert told[1] == (
        "search-rope: only 3 works decide, so only a large difference can be shown, and the plan will rather take a closed form: add "
        "documents of other works with at least 384 tokens, and set rope_search.deciding_samples to 6 or more"
    )
    assert any("at most" in line and " left" in line for line in told)
    storage = Storage(params.storage)
    assert search_stage.run(params, storage, documents_of(storage), lambda event: None).reused
    assert search_key.find(params, storage, documents_of(storage)) is not None
    other = params.model_copy(update={"rope_search": params.rope_search.model_copy(update={"seed": 1})})
    assert search_key.find(other, storage, documents_of(storage)) is None


def test_later_stages_plan_with_what_the_search_chose(searched: tuple) -> None:
    params, search, _ = searched
    result = load_result(search)
    planned = with_result(params, search)
    expected = {"longrope": "longrope", "ntk_critical": "theta"}.get(result.chosen, result.chosen)
    assert rope_plan_for(planned.model).method == expected
    assert not planned.searches_rope
    with_file = params.model.model_copy(update={"rope_factors_file": f"{search.path}/{FACTORS_NAME}"})
    plan = rope_plan_for(with_file)
    assert plan.rope_parameters["long_factor"] == list(result.factors)
    assert plan.rope_parameters["attention_factor"] == result.attention_factor
    assert plan.servable_by()["vllm"] != "", "vLLM computes another attention_factor"
    assert plan.servable_by()["transformers-5"] == ""


def test_a_chain_searches_once_and_trains_with_what_was_chosen(searched: tuple, folder: Path) -> None:
    params, search, _ = searched
    trained: list[PipelineParams] = []

    class Stages:
        ingest = prepare = staticmethod(lambda params, documents=None: documents_of(Storage(params.storage)))

        def search_rope(self, params: PipelineParams, documents: Artifact) -> Artifact:
            return search_stage.run(params, Storage(params.storage), documents, lambda event: None)

        def finetune(self, params: PipelineParams, shards: Artifact) -> Artifact:
            trained.append(params)
            return shards

        around = staticmethod(lambda params, needs_gpu: contextlib.nullcontext())

    chain = Chain(params, Stages(), records=False)  # type: ignore[arg-type]  # the stages that are called
    chain.finetuned()
    assert trained == [with_result(params, search)]
    assert chain.searched() is chain.artifacts["rope_search"]
    assert chain.record["rope_search"]["reused"]
    assert list(chain.record) == ["documents", "shards", "rope_search", "checkpoint"]


def test_factors_of_another_length_or_base_are_refused(searched: tuple, tmp_path: Path) -> None:
    params, search, _ = searched
    model = params.model.model_copy(update={"rope_factors_file": f"{search.path}/{FACTORS_NAME}"})
    with pytest.raises(UserError, match=r"found for 384 tokens, and model\.target_length is 512"):
        rope_plan_for(model.model_copy(update={"target_length": 512}))
    other = Path(shutil.copytree(model.base, tmp_path / "other"))
    (other / "README.txt").write_text("changed")
    with pytest.raises(UserError, match="found for another base"):
        rope_plan_for(model.model_copy(update={"base": str(other)}))
    copied = shutil.copy(f"{search.path}/{FACTORS_NAME}", tmp_path / "copy.json")
    assert rope_plan_for(model.model_copy(update={"base": str(other), "rope_factors_file": str(copied)})).method == "longrope"


def test_swapped_frequencies_compute_what_the_planned_model_computes(searched: tuple) -> None:
    params, search, _ = searched
    result = load_result(search)
    model = params.model.model_copy(update={"rope_factors_file": f"{search.path}/{FACTORS_NAME}"})
    ids = np.random.default_rng(0).integers(2, 380, 300).astype(np.int32)
    at = np.arange(280, 300)
    sample = SearchSample(doc_id="d", tokens=ids, answers=at[:10], text=at[10:], depths=(0.5,))
    swapping = SwappingModel(model, use_gpu=False)
    for method in ("longrope", "yarn", "ntk"):
        factors = model.rope_factors_file if method == "longrope" else None
        chosen = model.model_copy(update={"rope_method": method, "rope_factors_file": factors})
        plan = rope_plan_for(chosen)
        inv_freq, attention = plan.frequencies(300)
        swapping.swap(Rotation(tuple(inv_freq.tolist()), attention))
        planned = load_base(chosen, config=extended_config(chosen)).eval()
        tokens = torch.from_numpy(ids.astype(np.int64))
        with torch.inference_mode():
            nll = torch.nn.functional.cross_entropy(
                planned(tokens[None]).logits[0, at - 1].float(), tokens[at], reduction="none"
            )
        assert swapping.score(sample) == pytest.approx((nll[:10].mean().item(), nll[10:].mean().item()), abs=2e-5)
    assert result.target_length == 384


def test_a_killed_search_continues_to_the_same_factors_and_measures_nothing_twice(
    searched: tuple, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "base").symlink_to(folder / "base")
    log = tmp_path / "storage" / ".parts"
    process = subprocess.Popen([sys.executable, "-m", "tests.ray_jobs.search_rope.search_example", str(tmp_path)])
    wait_until(lambda: len(list(log.glob("*/*-*.json"))) >= 25, "25 records", process, step_s=0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.read_bytes() for path in log.glob("*/*-*.json")}
    assert before, "killed in the middle"
    params = search_params(tmp_path)
    storage = Storage(params.storage)
    continued = search_stage.run(params, storage, documents_of(storage), lambda event: None)
    lines = {line["key"]: line for line in map(json.loads, (continued.path / LOG_NAME).read_text().splitlines())}
    for name, content in before.items():
        assert lines[name.removesuffix(".json")] == json.loads(content), "its own time too: it was not measured again"
    assert len(lines) > len(before)
    assert not log.exists() or not any(log.iterdir())
    whole = searched[1]
    assert (continued.path / FACTORS_NAME).read_bytes() == (whole.path / FACTORS_NAME).read_bytes()
    assert load_result(continued) == load_result(whole)


def test_the_critical_pair_is_measured_without_a_search(searched: tuple) -> None:
    params, search, _ = searched
    documents = documents_of(Storage(params.storage))
    assert measured_critical_theta(params, documents.path, lambda event: None) == load_result(search).critical_theta


def test_a_closed_form_that_the_plan_cannot_take_is_no_rival(folder: Path) -> None:
    params = search_params(folder)
    space, config = space_of(params), load_config(params.model)
    assert rivals(space, params, config) == ("yarn", *LONGER_YARN, "ntk", "ntk_critical")
    config.rope_parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    assert rivals(space, params, config) == ()


@pytest.mark.parametrize("form", LONGER_YARN)
def test_yarn_for_more_than_the_target_is_measured_as_a_plan_computes_it(folder: Path, form: Form) -> None:
    params = search_params(folder)
    space = space_of(params)
    length = scaled_length(space, form)
    assert length > params.model.target_length
    plan = rope_plan_for(params.model.model_copy(update={"rope_method": "yarn", "rope_length": length}))
    inv_freq, attention = plan.frequencies(length)
    measured = closed_form(space, form)
    np.testing.assert_allclose(default_frequencies(space.theta, 2 * space.num_pairs) / np.asarray(measured.factors), inv_freq)
    assert measured.attention == attention


def test_factors_are_searched_on_the_model_of_a_training_stage(searched: tuple, tmp_path: Path) -> None:
    params, search, _ = searched
    storage = Storage(params.storage)
    trained = params.model_copy(update={"model": params.model.model_copy(update={"rope_method": "ntk"})})
    model = build_model(trained, torch.device("cpu"))
    torch.manual_seed(3)
    with torch.no_grad():
        for _, weight in trainable(model):
            weight.add_(0.1 * torch.randn_like(weight))

    def make(folder: Path) -> dict:
        save_adapter(folder / "adapter", model)
        return {}

    start = storage.build("checkpoints", stage="finetune", params={}, code_version=1, parents={}, make=make)
    ids = np.random.default_rng(0).integers(2, 380, 60).astype(np.int32)
    at = np.arange(40, 60)
    sample = SearchSample(doc_id="d", tokens=ids, answers=at[:10], text=at[10:], depths=(0.5,))
    inv_freq, attention = rope_plan_for(trained.model).frequencies(60)
    rotation = Rotation(tuple(inv_freq.tolist()), attention)
    scores = []
    for adapter in (None, start.path / "adapter"):
        swapping = SwappingModel(params.model, use_gpu=False, adapter=adapter)
        swapping.swap(rotation)
        scores.append(swapping.score(sample))
    tokens = torch.from_numpy(ids.astype(np.int64))
    with torch.inference_mode():
        nll = torch.nn.functional.cross_entropy(model.eval()(tokens[None]).logits[0, at - 1], tokens[at], reduction="none")
    assert scores[1] == pytest.approx((nll[:10].mean().item(), nll[10:].mean().item()), abs=1e-4)
    assert abs(scores[0][1] - scores[1][1]) > 0.01
    found = search_stage.run(params, storage, documents_of(storage), lambda event: None, start)
    assert found.digest != search.digest
    assert found.manifest.parents["checkpoint"] == start.digest
    assert load_result(found).forms != load_result(search).forms
