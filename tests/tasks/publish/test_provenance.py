"""What a release's provenance takes from the manifests of its stages."""

from pathlib import Path

from data_schemas.manifest import Manifest
from data_schemas.params import PipelineParams
from tasks.publish.base_identity import BaseIdentity
from tasks.publish.provenance import provenance


def checkpoint(**summary: object) -> Manifest:
    return Manifest(stage="finetune", params={}, code_version=4, parents={}, digest="d", summary=summary, files=())


def test_the_layers_in_full_and_their_scores_are_recorded_where_there_are_any() -> None:
    params = PipelineParams.model_validate(
        {"run_name": "t", "corpus": {"sources": ["x"]}, "model": {"base": "b", "target_length": 64}}
    )
    base = BaseIdentity("b", None, "f", None, Path(), {})
    chosen = {"layers": [3], "scores": [0.082, -0.007, 0.037, 0.727], "loss": 1.83}
    told = provenance(params, base, {"checkpoint": checkpoint(loss=2.0, full_attention=chosen)}, {})
    assert told["stages"]["checkpoint"]["full_attention"] == chosen
    assert "loss" not in told["stages"]["checkpoint"]
    without = provenance(params, base, {"checkpoint": checkpoint(loss=2.0)}, {})
    assert "full_attention" not in without["stages"]["checkpoint"]
