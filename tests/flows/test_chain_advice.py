"""The chain around the advice: what is refused before training, which model is asked, and what the release gets."""

from typing import Any

import pytest

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from flows.chain import Chain
from ray_jobs.advise import advice_key
from ray_jobs.evaluate import evaluation_key
from tests.flows.test_training_stages import RecordingStages, search_that_chose, staged_params


class AdvisingStages(RecordingStages):
    """Notes also what the later stages were given."""

    def refuse_unmeasurable(self, params, documents, shards):
        self.seen.append(("refuse_unmeasurable", shards.digest))

    def refuse_unadvisable(self, params, documents, shards):
        self.seen.append(("refuse_unadvisable", shards.digest))

    def evaluate(self, params, documents, checkpoint):
        return self._make(evaluation_key.KIND, **evaluation_key.inputs_of(params, documents, checkpoint))

    def advise(self, params, documents, checkpoint):
        self.seen.append(("advise", checkpoint and checkpoint.digest))
        return self._make(advice_key.KIND, **advice_key.inputs_of(params, documents, checkpoint))

    def publish(self, params, documents, shards, checkpoint, evaluation, advice):
        self.seen.append(("publish", advice and advice.digest))
        return self._make("releases", stage="publish", params={"has_advice": advice is not None}, code_version=1, parents={})


def advised_params(folder: Any, **advise: Any) -> PipelineParams:
    params = staged_params(folder)
    return params.model_copy(update={"advise": params.advise.model_copy(update=advise)})


def chain_of(params: PipelineParams) -> tuple[Chain, AdvisingStages]:
    stages = AdvisingStages(Storage(params.storage))
    return Chain(params, stages), stages


def test_questions_are_refused_before_training_and_the_trained_model_is_asked(tmp_path):
    params = advised_params(tmp_path)
    chain, stages = chain_of(params)
    advice = chain.advised()
    assert [what[0] for what in stages.seen] == ["prepare", "prepare", "refuse_unadvisable", "finetune", "finetune", "advise"]
    shards, last = chain.artifacts["shards"], chain.artifacts["checkpoint"]
    assert stages.seen[2] == ("refuse_unadvisable", shards.digest)
    assert stages.seen[-1] == ("advise", last.digest)
    found = advice_key.find(params, Storage(params.storage), chain.artifacts["documents"], last)
    assert found is not None
    assert found.digest == advice.digest == chain.record["advice"]["digest"]


def test_nothing_is_trained_where_the_trained_model_is_not_asked(tmp_path):
    chain, stages = chain_of(advised_params(tmp_path, arms=("base", "scaling_only")))
    chain.advised()
    assert stages.seen == [("advise", None)]


def test_the_release_gets_the_searches_of_all_stages(tmp_path):
    class SearchingStages(AdvisingStages):
        def search_rope(self, params, documents, start=None):
            return search_that_chose(self.storage, "ntk_critical" if start else "yarn")

        def publish(self, params, documents, shards, checkpoint, evaluation, advice, searches=None):
            self.seen.append(("publish", searches))
            return super().publish(params, documents, shards, checkpoint, evaluation, advice)

    params = staged_params(tmp_path, rope_method="longrope")
    stages = SearchingStages(Storage(params.storage))
    chain = Chain(params, stages)
    chain.published()
    searches = next(what[1] for what in stages.seen if what[0] == "publish")
    assert {name: search.manifest.summary["chosen"] for name, search in searches.items()} == {
        "rope_search_1": "yarn",
        "rope_search": "ntk_critical",
    }
    assert chain.params.model.rope_method == "theta"


@pytest.mark.parametrize("after_evaluation", [True, False])
def test_the_release_gets_the_advice_that_is_wanted(tmp_path, after_evaluation):
    chain, stages = chain_of(advised_params(tmp_path, after_evaluation=after_evaluation))
    chain.published()
    whats = [what[0] for what in stages.seen]
    advice: Artifact | None = chain.artifacts.get("advice")
    assert stages.seen[-1] == ("publish", advice.digest if advice else None)
    assert (advice is not None) == after_evaluation
    assert ("refuse_unadvisable" in whats[: whats.index("finetune")]) == after_evaluation
    assert whats.count("finetune") == 2
