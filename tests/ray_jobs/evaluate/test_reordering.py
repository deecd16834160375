"""Models that see a known part of their prompt get the order of passages that suits them, or none that is said to."""

from dataclasses import replace

import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.params import PipelineParams
from data_schemas.reorder import ReorderConfig, ReorderDecision, StrategyResult
from data_schemas.report import Report
from data_schemas.report_sections import published_curve
from data_schemas.samples import REORDER_SAMPLES
from ray_jobs.evaluate.measuring_units import measure_arm
from ray_jobs.evaluate.reordering import plan_reorder_units, reorder_rows
from ray_jobs.evaluate.workload import Workload
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.make import make_prompts
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.prompts.ranked_facts import fact_questions
from tasks.evaluate.report.build import build_report, recall_curve
from tasks.evaluate.report.markdown_page import markdown_tables
from tasks.publish.reorder_config import make_config
from tasks.reorder.candidates import compared_strategies
from tests.ray_jobs.evaluate.test_synthetic_models import (
    LINE,
    SETTINGS,
    LooksUp,
    Sees,
    all_up_to,
    first_and_last_quarter,
    last_tokens,
)

LENGTHS = (1536, 3072)
NUM_QUESTIONS = 160
PHRASE = 12  # reaches over a whole name, so that no other passage's fact is found
PARAMS = PipelineParams.model_validate(
    {"run_name": "r", "corpus": {"sources": ["books"]}, "model": {"base": "demo", "target_length": 3072}}
)


@pytest.fixture(scope="module")
def workload(tokenizer: PreTrainedTokenizerFast) -> Workload:
    text = "".join(LINE.format(number, number * 37 % 101) for number in range(300))
    haystack = Haystack.of([tokenize("d", text, tokenizer)])
    material = Material(tokenizer=tokenizer, haystack=haystack, num_depths=5, num_samples=8, seed=0)
    prompts = {("passkey", length): tuple(make_prompts("passkey", length, material)) for length in LENGTHS}
    return Workload((), (), prompts, ranked=fact_questions(LENGTHS, NUM_QUESTIONS, material))


def measured(sees: Sees, workload: Workload, tokenizer: PreTrainedTokenizerFast) -> tuple[Report, ReorderConfig]:
    """The report, and the config that a release would have."""
    model = LooksUp(sees, PHRASE)
    settings = SETTINGS.model_copy(update={"target_length": 3072, "arms": ("fine_tuned",)})
    samples = measure_arm(LooksUp(sees), "fine_tuned", workload, tokenizer, batch_tokens=8192)
    curve = published_curve(recall_curve(samples, settings))
    strategies = compared_strategies(workload.ranked.questions, curve)
    rows = [
        row
        for questions in workload.ranked.questions.values()
        for row in reorder_rows(model, questions, strategies, curve, tokenizer, 8192)
    ]
    report = build_report(replace(samples, reorder=pa.Table.from_pylist(rows, schema=REORDER_SAMPLES)), settings)
    return report, make_config(PARAMS, published_curve(report.recall_by_position), report.reorder_decision)


def difference(report: Report, strategy: str, against: str = "none") -> StrategyResult:
    (row,) = [row for row in decision(report).table if (row.strategy, row.against, row.length) == (strategy, against, None)]
    return row


def decision(report: Report) -> ReorderDecision:
    assert report.reorder_decision is not None
    return report.reorder_decision


@pytest.mark.slow
def test_a_model_that_sees_both_ends_wants_the_best_passages_there(
    workload: Workload, tokenizer: PreTrainedTokenizerFast
) -> None:
    report, config = measured(first_and_last_quarter, workload, tokenizer)
    assert config.strategy in ("important_first_last", "calibrated")
    assert config.validated is not None
    assert config.validated.is_distinguishable
    assert config.validated.measure == "score"
    for against in ("none", "random"):
        won = difference(report, config.strategy, against)
        assert won.low is not None
        assert won.high is not None
        assert 0 < won.low < won.difference < won.high
        assert won.p_holm < 0.05
        assert won.num_samples == NUM_QUESTIONS
    assert config.golden["4"] == (1, 3, 4, 2)
    page = markdown_tables(report)
    assert "### Order of retrieved passages" in page
    assert "8 at 1536 tokens, 16 at 3072 tokens" in page
    assert f"| {config.strategy} (chosen) | all |" in page


@pytest.mark.slow
def test_a_model_that_sees_the_end_wants_the_best_passages_last(workload: Workload, tokenizer: PreTrainedTokenizerFast) -> None:
    report, config = measured(last_tokens(1000), workload, tokenizer)
    assert config.strategy in ("reverse_rank", "calibrated")
    assert config.golden["5"][-1] == 1, "the best passage right before the question"
    assert difference(report, config.strategy).difference > 0.3
    assert "calibrated" in {row.strategy for row in decision(report).table}


@pytest.mark.slow
def test_a_model_that_sees_everything_is_indifferent(workload: Workload, tokenizer: PreTrainedTokenizerFast) -> None:
    report, config = measured(all_up_to(3072), workload, tokenizer)
    assert config.strategy == "important_first_last"
    assert config.validated is not None
    assert not config.validated.is_distinguishable
    assert difference(report, "none").mean == 1.0, "it answers every question"
    assert {row.p_value for row in decision(report).table} == {1.0}
    assert report.reorder is not None
    assert "flat within its intervals" in report.reorder.calibrated
    assert "`calibrated` was not compared" in markdown_tables(report)


def test_units_hold_every_question_once(workload: Workload) -> None:
    for batch_tokens in (64, 4096, 10**6):
        units = plan_reorder_units(workload, batch_tokens, first_number=7)
        assert [unit.number for unit in units] == list(range(7, 7 + len(units)))
        for length in LENGTHS:
            asked = [i for unit in units if unit.length == length for i in range(unit.first, unit.last)]
            assert asked == list(range(NUM_QUESTIONS))
