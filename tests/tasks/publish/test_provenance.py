"""What a release's provenance takes from the manifests of its stages."""

from pathlib import Path

from data_schemas.data_card import DataCard
from data_schemas.earlier_stages import mix_of
from data_schemas.ledger import Ledger
from data_schemas.manifest import Manifest
from data_schemas.params import PipelineParams
from tasks.publish.base_identity import BaseIdentity
from tasks.publish.provenance import _told_by_shards, provenance


def of_shards(**summary: object) -> Manifest:
    return Manifest(stage="prepare", params={}, code_version=1, parents={}, digest="s", summary=summary, files=())


def checkpoint(**summary: object) -> Manifest:
    return Manifest(stage="finetune", params={}, code_version=4, parents={}, digest="d", summary=summary, files=())


def test_shares_of_the_rows_say_that_they_are_the_last_stages_where_there_are_several() -> None:
    shards = of_shards(retrieval={"wanted": 0.2, "reached": 0.19})
    several = _told_by_shards({"shards": shards, "checkpoint": checkpoint(earlier_stages=[{"digest": "a"}])})
    assert several["retrieval"] == shards.summary["retrieval"] | {"about": "rows of the last training stage alone"}
    assert _told_by_shards({"shards": shards, "checkpoint": checkpoint()}) == {"retrieval": shards.summary["retrieval"]}


def test_a_data_card_says_that_it_is_about_the_last_stage_alone_where_there_are_several() -> None:
    figures = {
        "row_length": 64,
        "num_rows": 2,
        "num_tokens": 128,
        "waste": 0.0,
        "num_heldout_rows": 1,
        "num_heldout_tokens": 64,
    }
    card = DataCard(**figures, groups=(), lengths=(), ledger=Ledger(lines=()), warnings=(), samples=())
    staged = card.model_copy(update={"earlier_stages": "32 tokens in 3 steps, yarn x2"})
    assert "last training stage alone" in staged.markdown()
    assert "trained in other stages: 32 tokens in 3 steps, yarn x2." in staged.markdown()
    assert "stage" not in card.markdown()


def test_the_layers_in_full_and_their_scores_are_recorded_where_there_are_any() -> None:
    params = PipelineParams.model_validate(
        {"run_name": "t", "corpus": {"sources": ["x"]}, "model": {"base": "b", "target_length": 64}}
    )
    base = BaseIdentity("b", None, "f", None, Path(), {})
    chosen = {"layers": [3], "scores": [0.082, -0.007, 0.037, 0.727], "loss": 1.83}
    told = provenance(params, base, {"checkpoint": checkpoint(loss=2.0, full_attention=chosen)}, {})
    assert told["stages"]["checkpoint"]["full_attention"] == chosen
    mix = mix_of({"reached": 0.19, "families": [{"family": "keyword"}]}, 0.5)
    with_mix = provenance(params, base, {"checkpoint": checkpoint(retrieval_mix=mix)}, {})
    assert with_mix["stages"]["checkpoint"]["retrieval_mix"] == mix
    assert "loss" not in told["stages"]["checkpoint"]
    without = provenance(params, base, {"checkpoint": checkpoint(loss=2.0)}, {})
    assert "full_attention" not in without["stages"]["checkpoint"]
