"""The search as a stage: what is measured is what a plan serves, kills lose and change nothing, wrong input is one sentence."""

import contextlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig, Phi3Config, PreTrainedTokenizerFast

from data_schemas.consumers import CLAIMS, SERVABLE, RopeUse, why_not
from data_schemas.errors import UserError
from data_schemas.manifest import stage_digest
from data_schemas.params import ModelParams, PipelineParams
from data_schemas.rope_search import FACTORS_NAME, LOG_NAME, Form
from data_schemas.storage import Artifact, Storage
from flows.chain import Chain
from ray_jobs.finetune import in_stages
from ray_jobs.finetune.training.checkpoint import save_adapter
from ray_jobs.finetune.training.lora import trainable
from ray_jobs.finetune.training.training_model import build_model
from ray_jobs.preflight import refuse_untrainable
from ray_jobs.search_rope import search_key, search_stage
from ray_jobs.search_rope.before_training import refuse_unsearchable
from ray_jobs.search_rope.critical import measured_critical_theta
from ray_jobs.search_rope.search_stage import search_samples
from ray_jobs.search_rope.swapping import Rotation, SwappingModel
from tasks.evaluate.heldout import read_works
from tasks.model.base_model import load_base, load_config
from tasks.model.extended import extended_config, rope_plan_for
from tasks.model.rope_frequencies import default_frequencies
from tasks.rope_search.plans import (
    as_search,
    factors_file,
    foreseen,
    load_result,
    rivals,
    space_of,
    with_result,
    with_stand_in,
)
from tasks.rope_search.samples import SearchSample
from tasks.rope_search.seeds import LONGER_YARN, closed_form, scaled_length, seed_genomes
from tasks.rope_search.served import misreading, publishes_two_lists
from tests.heard import texts_into
from tests.ray_jobs.search_rope.search_example import documents_of, search_params, write_base
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    made = tmp_path_factory.mktemp("search")
    write_base(made / "base", tokenizer)
    return made


@pytest.fixture(scope="module")
def searched(folder: Path) -> tuple[PipelineParams, Artifact, list[str]]:
    params, told = search_params(folder), []
    storage = Storage(params.storage)
    return params, search_stage.run(params, storage, documents_of(storage), texts_into(told)), told


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


def test_a_work_is_on_one_side_and_counts_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = search_params(folder)
    space, documents = space_of(params), documents_of(Storage(params.storage)).path
    own = read_works(documents)
    works = {doc_id: f"work {number % 5}" for number, doc_id in enumerate(own)}
    monkeypatch.setattr("tasks.rope_search.sides.read_works", lambda folder: works)
    samples = search_samples(params, documents, space)
    sides = samples[: params.rope_search.samples], samples[params.rope_search.samples :]
    of_search, of_decision = ({sample.cluster for sample in side} for side in sides)
    assert not of_search & of_decision
    assert of_search | of_decision == set(works.values())
    monkeypatch.setattr("tasks.rope_search.sides.read_works", lambda folder: dict.fromkeys(own, "one"))
    assert all(sample.cluster == sample.doc_id for sample in search_samples(params, documents, space))


@pytest.mark.parametrize(
    ("single", "large", "num_large", "on_sides"),
    [(3, 40, 3, (2, 4)), (10, 40, 3, (5, 8)), (40, 0, 0, (10, 16)), (1, 40, 2, (10, 16))],
)
def test_each_work_gives_a_document_before_any_gives_a_second(
    folder: Path, tmp_path: Path, single: int, large: int, num_large: int, on_sides: tuple[int, int]
) -> None:
    params = search_params(folder, samples=10, deciding_samples=16)
    works = [f"single {number}" for number in range(single)] + [f"large {n}" for n in range(num_large) for _ in range(large)]
    documents = documents_of(Storage(str(tmp_path)), ["held out", *works]).path
    samples = search_samples(params, documents, space_of(params))
    of_search, of_decision = ({sample.cluster for sample in part} for part in (samples[:10], samples[10:]))
    assert not of_search & of_decision
    assert (len(of_search), len(of_decision)) == on_sides
    if len(set(works)) >= 4:
        assert of_search | of_decision <= set(works)
        assert len({sample.cluster for sample in samples[10:14]}) == 4, "the first look is on different works"
    else:
        assert all(sample.cluster == sample.doc_id for sample in samples), "fewer than four works"


def test_attention_is_searched_only_where_every_server_reads_it(folder: Path) -> None:
    params = search_params(folder)
    served = params.model_copy(update={"model": params.model.model_copy(update={"serve_with": ("vllm",)})})
    assert space_of(params).attention
    assert not space_of(served).attention
    asked = served.model_copy(update={"rope_search": served.rope_search.model_copy(update={"attention": "searched"})})
    with pytest.raises(UserError, match="vLLM computes longrope's attention_factor itself"):
        space_of(asked)


def test_short_prompts_get_their_own_list_only_where_every_server_switches(searched: tuple, folder: Path) -> None:
    params, search, _ = searched
    with pytest.raises(ValueError, match=r"which no row would train: set training\.short_window_share"):
        search_params(folder, short_factors="original")
    asked = search_params(folder, short_factors="original", short_window_share=0.25)
    served = {
        name: asked.model_copy(update={"model": asked.model.model_copy(update={"serve_with": (name,)})})
        for name in ("transformers-5", "transformers-4.57", "vllm")
    }
    assert publishes_two_lists(asked)
    assert [publishes_two_lists(one) for one in served.values()] == [True, False, False]
    for name, why in (
        ("vllm", "vLLM uses the long factors for every prompt, also for those of at most 128 tokens"),
        (
            "transformers-4.57",
            "transformers 4 takes max_position_embeddings as the original length and never uses the long factors",
        ),
    ):
        assert misreading(served[name], "longrope_two_lists") == {name: why}
        told: list[str] = []
        search_stage._Search(served[name], documents_of(Storage(params.storage)).path, texts_into(told), None)._announce()
        assert told[-1] == f"search-rope: both lists will be equal, because {why}"
    result = load_result(search)
    assert factors_file(result, two_lists=True)["long_factor"] == list(result.factors)
    space = space_of(asked)
    assert {space.candidate(genome).attention for genome in seed_genomes(space, 4)} == {1.0}, "both lists have the same factor"
    assert space_of(served["vllm"]).kept_attention > 1, "with equal lists it is LongRoPE's"
    for chosen in ("longrope", "searched"):
        with pytest.raises(ValueError, match="set attention to auto, or short_factors to equal"):
            search_params(folder, short_factors="original", short_window_share=0.25, attention=chosen)
    documents = documents_of(Storage(params.storage))
    digests = {stage_digest(**search_key.inputs_of(one, documents)) for one in (params, asked, served["vllm"])}
    assert len(digests) == 3


def test_short_prompts_of_a_release_with_original_short_factors_have_the_logits_of_the_base(
    searched: tuple, folder: Path, tmp_path: Path
) -> None:
    params = search_params(folder, short_factors="original", short_window_share=0.25)
    space = space_of(params)
    found = space.candidate(seed_genomes(space, 4)[0])
    settings = params.rope_search
    changes = {
        "factors": found.factors,
        "attention_factor": found.attention,
        "attention_searched": space.attention,
        "settings": settings,
    }
    written = factors_file(load_result(searched[1]).model_copy(update=changes), publishes_two_lists(params))
    (tmp_path / "found.json").write_text(json.dumps(written))
    model = params.model.model_copy(update={"rope_factors_file": str(tmp_path / "found.json")})
    released = load_base(model, config=extended_config(model))
    released.save_pretrained(tmp_path / "release")
    rope_plan_for(model).write_config(tmp_path / "release")
    base, release = (
        AutoModelForCausalLM.from_pretrained(at, dtype=torch.float64).eval() for at in (model.base, tmp_path / "release")
    )
    tokens = torch.from_numpy(np.random.default_rng(0).integers(2, 380, (1, 300)))
    with torch.inference_mode():
        assert torch.equal(release(tokens[:, :128]).logits, base(tokens[:, :128]).logits)
        assert not torch.allclose(release(tokens).logits, base(tokens).logits, atol=1e-3)
        assert torch.equal(release(tokens[:, :40]).logits, base(tokens[:, :40]).logits), "also after a long prompt"


def test_a_program_that_reads_longrope_reads_every_rival() -> None:
    model_types = {"llama"} | {name.rstrip("*") for claim in CLAIMS for name in (*claim.only_for, *claim.except_for)}
    for name, model_type in itertools.product(SERVABLE, model_types):
        reads = {
            rope_type: not why_not(
                name, RopeUse(model_type=model_type, rope_type=rope_type, features=frozenset({rope_type}), numbers=numbers)
            )
            for numbers in ({"original": 128, "target": 384, "served": 384},)
            for rope_type in ("longrope", "yarn", "default")
        }
        assert not reads["longrope"] or all(reads.values()), (name, model_type, "the search's key must hold the rivals")


def test_phi3_gets_two_lists_with_transformers_4_which_switches_for_it(folder: Path, tmp_path: Path) -> None:
    params = search_params(folder, short_factors="original", short_window_share=0.25)
    phi3 = tmp_path / "phi3"
    Phi3Config(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=128, original_max_position_embeddings=128, pad_token_id=None,
    ).save_pretrained(phi3)  # fmt: skip
    for served, expected in ((("transformers-4.57",), True), (("transformers-5", "transformers-4.57"), True), ((), True)):
        changes = {"base": str(phi3), "serve_with": served}
        asked = params.model_copy(update={"model": params.model.model_copy(update=changes)})
        assert publishes_two_lists(asked) is expected
        assert misreading(asked, "longrope_two_lists") == {}


def test_a_base_with_rope_by_layer_type_is_refused(folder: Path) -> None:
    from tasks.rope_search.plans import space_for
    from tests.tiny_models import tiny_config

    params = search_params(folder)
    with pytest.raises(UserError, match="layer type"):
        space_for(tiny_config("gemma3"), params)
    config = load_config(ModelParams(base=str(folder / "base"), target_length=384))
    assert space_for(config, params).num_pairs == 8


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
