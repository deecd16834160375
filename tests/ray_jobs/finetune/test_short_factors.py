"""The list for short prompts that is looked for after training with longrope's two lists."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.short_factors import SHORT_FACTORS_NAME, read_short_factors
from data_schemas.storage import Artifact, Storage
from ray_jobs.finetune import checkpoint_stage, short_factors
from ray_jobs.finetune.short_factors import short_samples
from ray_jobs.search_rope.swapping import SwappingModel
from tasks.evaluate.heldout import read_heldout
from tasks.model.extended import load_arm, rope_plan_for
from tasks.model.rope_plan import RopePlan
from tasks.rope_search.short_factors import SHARES, best_share, decided, list_between, most_passes
from tasks.work import InProcess
from tests.flows.small_run import prepare_here, small_params
from tests.heard import texts_into

FACTORS = {"short_factor": [1.0] * 4, "long_factor": [1.0, 1.5, 2.0, 2.0], "attention_factor": 1.1}


@pytest.fixture(scope="module")
def home(tmp_path_factory, tokenizer) -> Path:
    home = tmp_path_factory.mktemp("short")
    (home / "factors.json").write_text(json.dumps(FACTORS))
    prepare_here(small_params(home, tokenizer))
    return home


@pytest.fixture
def params(home, tokenizer) -> PipelineParams:
    return params_of(home, tokenizer)


def params_of(home: Path, tokenizer: PreTrainedTokenizerFast, *, find: bool = True) -> PipelineParams:
    factors = {"rope_method": "longrope", "rope_factors_file": str(home / "factors.json")}
    search = {"samples": 2, "deciding_samples": 4}
    training = {"short_window_share": 0.5, "find_short_factors": find, "steps": 2, "learning_rate": 1e-2}
    return PipelineParams.model_validate(
        small_params(home, tokenizer, model=factors, training=training, rope_search=search, ray={"num_workers": 1})
    )


def shards_of(storage: Storage) -> Artifact:
    [manifest] = storage.manifests("shards")
    found = storage.find("shards", manifest.digest)
    assert found is not None
    return found


class KilledAfter(InProcess):
    """Is interrupted when so many units are done."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self._left = units

    def map(self, function, units):
        for result in super().map(function, units):
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
            yield result


def test_a_list_lies_between_the_trained_one_and_the_long_one(params):
    plan = rope_plan_for(params.model)
    assert list_between(plan, 0).factors == tuple(FACTORS["short_factor"])
    assert list_between(plan, 1).factors == tuple(FACTORS["long_factor"])
    assert list_between(plan, 0.5).factors[3] == pytest.approx(2**0.5)
    assert {list_between(plan, share).attention for share in SHARES} == {1.1}, "both lists share it"


@pytest.mark.parametrize(
    ("trained", "used"),
    [([2.0, 2.1, 2.2, 2.3], True), ([1.9, 2.1, 1.9, 2.1], False)],
    ids=["better in each work", "not told apart"],
)
def test_a_list_is_used_only_if_it_beats_the_trained_one_on_other_works(params, trained, used):
    plan = rope_plan_for(params.model)
    losses = {share: [2.0, 3.0] if share != 0.4 else [1.9, 3.0] for share in SHARES}
    assert best_share(losses) == 0.4
    found = decided(plan, losses, [value - 0.1 for value in (2.0, 2.1, 2.2, 2.3)], trained, list("abcd"), 0.95)
    assert found.is_used == used
    assert found.short_factor == list_between(plan, 0.4 if used else 0).factors
    assert (found.high < 0) == used
    few = decided(plan, losses, [1.9] * 4, [2.0] * 4, list("abcd"), 0.95, of_works=False)
    assert few.verdict.endswith("on 4 documents, which are of fewer than four works")
    of_one_work = decided(plan, losses, [1.9] * 4, [2.0] * 4, list("aaaa"), 0.95)
    assert not of_one_work.is_used, "one work has no interval"


def test_of_equal_lists_the_trained_one_stays(params):
    plan = rope_plan_for(params.model)
    found = decided(plan, {share: [2.0] for share in SHARES}, [2.0, 2.0], [2.0, 2.0], list("ab"), 0.95)
    assert (found.share, found.is_used, found.short_factor) == (0, False, tuple(FACTORS["short_factor"]))


def test_it_is_refused_without_two_lists_and_belongs_to_the_last_stage_alone(params):
    given = params.model_dump(mode="json")
    with pytest.raises(ValidationError, match=r"training\.find_short_factors is for longrope's two lists"):
        PipelineParams.model_validate(given | {"model": given["model"] | {"rope_method": "yarn", "rope_factors_file": None}})
    stages = [{"target_length": 96, "rope_method": "yarn"}, {"target_length": 128}]
    staged = PipelineParams.model_validate(given | {"training": given["training"] | {"stages": stages}})
    assert [stage.training.find_short_factors for stage in staged.by_stage()] == [False, True]


def test_too_few_documents_and_documents_that_are_gone_are_said_before_training(params, tmp_path):
    plan, storage = rope_plan_for(params.model), Storage(params.storage)
    shards = shards_of(storage)
    longer = plan.__class__(**{**plan.__dict__, "original_length": 100_000})
    with pytest.raises(
        UserError, match="No training document has at least 100000 tokens, and a list for short prompts needs 4"
    ):
        short_samples(params, longer, storage, shards)
    with pytest.raises(UserError, match=r"are no longer in the storage: run prepare again, or set it to false"):
        short_samples(params, plan, Storage(str(tmp_path)), shards)
    found = short_samples(params, plan, storage, shards)
    read = {sample.doc_id for sample in (*found.choosing, *found.deciding)}
    documents = storage.find("documents", shards.manifest.parents["documents"])
    held_out = {doc_id for doc_id, _ in read_heldout(documents.path, min_bytes=0)}
    assert read
    assert not read & held_out, "the evaluation's documents are not read"


def test_a_finished_training_is_used_and_the_checkpoint_has_the_list_that_was_measured(
    params, home, tokenizer, servers, monkeypatch
):
    torch.set_num_threads(1)
    plain = params_of(home, tokenizer, find=False)
    storage, told = Storage(params.storage), []
    shards = shards_of(storage)

    def half_way(plan, *measured):  # whatever a model of two steps prefers
        return decided(plan, *measured).model_copy(update={"is_used": True, "short_factor": list_between(plan, 0.5).factors})

    monkeypatch.setattr(short_factors, "decided", half_way)
    before = checkpoint_stage.run(plain, storage, shards, lambda event: None)
    after = checkpoint_stage.run(params, storage, shards, texts_into(told))
    assert f"finetune: trained already, as checkpoints/{before.digest}" in told
    assert read_short_factors(before.path) is None
    found = read_short_factors(after.path)
    assert f"finetune: {found.verdict}" in told
    assert after.manifest.summary["short_factors"] == found.verdict
    weights = [load_file(one.path / "adapter" / "adapter_model.safetensors") for one in (before, after)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    plans = [RopePlan.from_json((one.path / "rope_plan.json").read_text()) for one in (before, after)]
    assert plans[1] == plans[0].with_short_factors(found.short_factor)
    assert plans[1] != plans[0]
    assert checkpoint_stage.run(params, storage, shards, lambda event: None).reused
    more = params.model_copy(update={"rope_search": params.rope_search.model_copy(update={"samples": 3})})
    checkpoint_stage.run(more, storage, shards, texts_into(told))
    assert sum(line.startswith("finetune: trained already") for line in told) == 2, "other measurements train nothing"
    assert not list((storage.root / ".parts").glob("*/*")), "what was measured on the way is gone"

    # After a kill only what is missing is measured, and the result is the same.
    samples, key = short_samples(params, plans[0], storage, shards), "of-this-test"
    with storage.parts(key, False) as log, pytest.raises(KeyboardInterrupt):
        short_factors._measured(params, plans[0], samples, after.path / "adapter", KilledAfter(9), log)
    passes, score = [], SwappingModel.score
    monkeypatch.setattr(SwappingModel, "score", lambda self, sample: passes.append(sample) or score(self, sample))
    with storage.parts(key, False) as log:
        assert short_factors._measured(params, plans[0], samples, after.path / "adapter", InProcess(), log) == found
    assert len(passes) <= most_passes(len(samples.choosing), len(samples.deciding)) - 9

    # The losses are those of the model as it would be published, loaded without our frequencies.
    for share in (0.0, 0.5, 1.0):
        stated = found.model_copy(update={"short_factor": list_between(plans[0], share).factors})
        (after.path / SHORT_FACTORS_NAME).write_text(stated.model_dump_json())
        model = load_arm(params, "fine_tuned", after.path)
        losses = []
        for sample in samples.choosing:
            tokens = torch.from_numpy(sample.tokens.astype(np.int64))
            with torch.inference_mode():
                logits = model(input_ids=tokens[None]).logits[0, sample.text - 1]
            losses.append(torch.nn.functional.cross_entropy(logits, tokens[sample.text]).item())
        assert np.mean(losses) == pytest.approx(found.loss_by_share[f"{share:g}"], abs=1e-5)
    assert len({round(loss, 6) for loss in found.loss_by_share.values()}) > 5, "lists differ in what they give"


def test_looking_for_it_does_not_change_which_steps_are_trained(params, home, tokenizer):
    plain = params_of(home, tokenizer, find=False)
    steps = [checkpoint_stage.trajectory_of(checkpoint_stage.stage_params(one)) for one in (plain, params)]
    assert steps[0] == steps[1]
    assert checkpoint_stage.stage_params(plain) != checkpoint_stage.stage_params(params)
    more = params.model_copy(update={"rope_search": params.rope_search.model_copy(update={"deciding_samples": 8})})
    assert checkpoint_stage.stage_params(more) != checkpoint_stage.stage_params(params)
    assert checkpoint_stage.determining(more) != checkpoint_stage.determining(params), "jobs on a cluster have other names"
