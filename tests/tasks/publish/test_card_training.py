"""What the card says of the training is what the parameters asked for."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import PipelineParams
from data_schemas.report import read_report
from data_schemas.samples import QUANTISED_ARM
from tasks.evaluate.report.result_files import REPORT_NAME
from tasks.model.rope_plan import RopePlan
from tasks.publish.base_identity import identify
from tasks.publish.card import render_card
from tasks.publish.reorder_config import make_config
from tests.tasks.release_example import TARGET, FinishedRun, finished_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> FinishedRun:
    return finished_run(tmp_path_factory.mktemp("run"), tokenizer)


def card(run: FinishedRun, **groups: dict[str, Any]) -> str:
    given = run.params.model_dump(mode="json")
    params = PipelineParams.model_validate(given | {name: given[name] | values for name, values in groups.items()})
    report = read_report(run.evaluation.path / REPORT_NAME)
    if params.training.base_precision != "full":
        row = report.comparisons[0]
        held = row.model_copy(update={"denominator": row.denominator.model_copy(update={"arm": QUANTISED_ARM})})
        report = report.model_copy(update={"comparisons": (held,)})
    return render_card(
        params=params,
        base=identify(params.model),
        plan=RopePlan.from_json((run.checkpoint.path / "rope_plan.json").read_text()),
        base_window=64,
        report=report,
        plots=[],
        servers=[],
        reorder=make_config(params, ()),
        documents_summary=run.documents.manifest.summary,
        shards_summary=run.shards.manifest.summary,
    )


def test_rows_of_the_target_in_groups(run: FinishedRun) -> None:
    text = card(run)
    assert f"rows of up to {TARGET} tokens, shifted sparse attention" in text
    assert "LongLoRA: shifted sparse attention in training only" in text
    assert "skipped" not in text


def test_shorter_rows_with_skipped_positions(run: FinishedRun) -> None:
    text = card(run, packing={"row_length": 128}, training={"position_skipping": 3})
    assert "rows of up to 128 tokens" in text
    assert f"Positions were skipped (PoSE): each document in up to 3 parts, spread over {TARGET} positions." in text


def test_full_attention_in_training(run: FinishedRun) -> None:
    text = card(run, training={"attention": "full"})
    assert "sparse" not in text
    assert "(LoRA, with full attention in training, evaluation and use)" in text


@pytest.mark.parametrize(("precision", "rounds"), [("nf4", False), ("fp8", True)])
def test_weights_in_fewer_bits(run: FinishedRun, precision: str, rounds: bool) -> None:
    text = card(run, training={"base_precision": precision})
    assert "times that of the same adapter on these weights as they were held." in text
    assert ("Training also rounded the inputs of these layers to 8 bits" in text) is rounds
