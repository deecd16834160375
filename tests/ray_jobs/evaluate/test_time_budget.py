"""Fewer samples are measured where those asked for do not fit the time, and what they can show is said before."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.parts import Parts
from ray_jobs.evaluate.evaluation_stage import load_report
from ray_jobs.evaluate.measuring_units import Unit
from ray_jobs.evaluate.time_budget import fitting_samples, keep_number, kept_number
from ray_jobs.finetune.planning.flops import ModelCost
from tests.ray_jobs.evaluate.evaluation_example import TinyRun, make_tiny_run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> TinyRun:
    return make_tiny_run(tmp_path_factory.mktemp("budget"), tokenizer)


def unit(number: int, kind: str, name: str, windows: int) -> Unit:
    return Unit(number, "base", kind, name, 64, 0, 1, windows, (64,) * windows)  # type: ignore[arg-type]


def test_the_largest_number_of_samples_that_fits() -> None:
    cost = ModelCost(matrix_weights=10, trained_matrix_weights=10, layers=10, heads=10, kv_heads=10, head_dim=10)
    window = cost.forward_flops([64])
    units = [unit(0, "perplexity", "", 30), unit(1, "task", "passkey", 80), unit(2, "task", "vt", 7)]

    def fitting(seconds: float) -> int:
        return fitting_samples(units, ("passkey",), 8, cost, window, seconds)  # a window a second

    assert [fitting(s) for s in (1000, 117, 116.9, 67, 57, 1)] == [8, 8, 7, 3, 2, 1]
    assert fitting_samples(units[:1], ("passkey",), 8, cost, window, 1) == 8, "without tasks nothing can be fewer"


def test_an_interrupted_run_keeps_its_number(tmp_path: Path, tiny: TinyRun) -> None:
    with tiny.elsewhere(tmp_path).storage.parts("key", False) as parts:
        assert isinstance(parts, Parts)
        assert kept_number(parts) is None
        keep_number(5, parts)
        assert kept_number(parts) == 5


def test_a_budget_that_nothing_fits_measures_one_sample_and_says_so(tiny: TinyRun) -> None:
    evaluation = tiny.evaluate(time_budget=1e-9, num_samples=3, longppl_evaluator=None)
    told = "\n".join(tiny.told)
    assert "1 of 3 samples of each task fit evaluation.time_budget of 1e-09 minutes" in told
    assert "1 sample can show no difference, whatever is measured" in told
    report = load_report(evaluation)
    assert report.settings.num_samples == 1
    assert report.power is not None
    assert not any(planned.can_show for planned in report.power.comparisons if "fine-tuned against" in planned.name)
    assert {test.verdict for family in report.tests for test in family.tests} == {"too_few_samples"}
    samples = pq.read_table(evaluation.path / "task_samples.parquet", columns=["sample"])["sample"]
    assert samples.unique().to_pylist() == [0]


def test_an_empty_number_of_samples_is_chosen_for_the_effect(tiny: TinyRun) -> None:
    tiny.evaluate(num_samples=None, detectable_effect=90.0, task_lengths=(256,), longppl_evaluator=None)
    (line,) = [line for line in tiny.told if "against scaling only at the longest length" in line]
    found = re.search(r": (\d+) samples find differences from (\d+) points", line)
    assert found is not None
    assert int(found[1]) == 7, "six could be shown only if every one favoured the same model"
    assert int(found[2]) <= 90
