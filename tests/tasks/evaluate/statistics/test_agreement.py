"""In no row of the report do test and interval contradict each other, over random tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from data_schemas.report_sections import Bound
from tasks.evaluate.statistics.estimates import Estimate
from tasks.evaluate.statistics.hypothesis_tests import holm, holm_levels, smallest_sign_flip_p
from tasks.evaluate.statistics.lost_in_the_middle import lost_in_the_middle
from tasks.evaluate.statistics.non_inferiority import non_inferiority
from tasks.evaluate.statistics.paired_differences import PairedDifference, agreeing, no_difference_test
from tasks.evaluate.statistics.paired_tests import paired_families
from tasks.evaluate.statistics.reorder_choice import choose_default
from tasks.evaluate.statistics.sampled import Sampled
from tasks.evaluate.statistics.task_cells import TaskCells, TaskKey, TaskRows
from tests.tasks.evaluation_rows import changed_settings

LENGTHS = (512, 1024, 2048)


def excludes_zero(low: Bound, high: Bound) -> bool:
    return low is not None and high is not None and (low > 0 or high < 0)


def random_cells(seed: int, samples: int, depths: int, golds: int) -> TaskCells:
    """Three arms whose scores are more or less alike, by arm and sample, in steps of 1 / golds."""
    rng = np.random.default_rng(seed)
    cells = {}
    for length in LENGTHS:
        ease = rng.random((samples, 1)) ** rng.uniform(0.2, 3)
        for arm in ("base", "scaling_only", "fine_tuned"):
            skill = rng.uniform(0, 1.2)
            score = rng.binomial(golds, np.clip(skill * ease, 0, 1), (samples, depths)) / golds
            cells[TaskKey(arm, "passkey", length)] = TaskRows(
                sample=np.repeat(np.arange(samples), depths),
                depth=np.tile(np.linspace(0, 1, depths), samples),
                score=score.ravel(),
                gain=rng.normal(skill, 1, samples * depths),
                prompt_hash=np.zeros(samples * depths, "U1"),
            )
    return cells


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 11), st.integers(1, 5), st.sampled_from([1, 4]), st.sampled_from([0.8, 0.95, 0.99])
)
def test_interval_excludes_zero_exactly_where_the_test_rejects(
    seed: int, samples: int, depths: int, golds: int, confidence: float
) -> None:
    asked, cells = changed_settings(confidence=confidence), random_cells(seed, samples, depths, golds)
    at_window = {}
    for family in paired_families(cells, asked):
        for test in family.tests:
            assert excludes_zero(test.low, test.high) == (test.p_value < 1 - confidence)
            assert excludes_zero(test.low_holm, test.high_holm) == (test.p_holm < 1 - confidence)
            assert (test.verdict in ("first_better", "second_better")) == (test.p_holm < 1 - confidence)
            assert -1 <= test.low_holm <= test.low <= test.difference + 1e-12  # type: ignore[operator]
            assert test.difference - 1e-12 <= test.high <= test.high_holm <= 1  # type: ignore[operator]
            assert test.p_holm >= test.smallest_p_holm - 1e-12  # type: ignore[operator]
            if test.verdict == "too_few_samples":
                assert test.smallest_p_holm >= 1 - confidence  # type: ignore[operator]
            if (family.second, test.length) == ("base", 512):
                at_window[family.first] = (test.low, test.high)
    for row in non_inferiority({}, cells, asked).tasks:
        assert at_window.get(row.arm, (row.low, row.high)) == (row.low, row.high), "one difference, one interval"
    for middle in lost_in_the_middle(cells, asked):
        for index in (middle.score, middle.gain):
            if index is not None and index.low is not None:
                assert excludes_zero(index.low, index.high) == (index.p_value < 1 - confidence)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 11), st.sampled_from(["score", "logprob"]))
def test_orders_of_passages_do_not_contradict_themselves(seed: int, samples: int, measure: str) -> None:
    rng = np.random.default_rng(seed)
    shift = {"none": 0.0, "important_first_last": rng.uniform(-1, 1), "reverse_rank": rng.uniform(-1, 1), "random": 0.0}
    rows = [
        {"strategy": name, "length": length, "sample": sample, "score": float(rng.random() < 0.5 + by / 2), "logprob": value}
        for name, by in shift.items()
        for length in (512, 1024)
        for sample in range(samples)
        if (value := rng.normal(by, 0.5))
    ]
    for row in choose_default(rows, measure=measure).table:  # type: ignore[arg-type]
        if row.test != "reference" and row.low is not None:
            assert excludes_zero(row.low, row.high) == (row.p_value < 0.05)


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=10), st.sampled_from([0.01, 0.05, 0.2]))
def test_levels_of_holm_reject_what_holm_rejects(p_values: list[float], alpha: float) -> None:
    for p, adjusted, level in zip(p_values, holm(p_values), holm_levels(p_values, alpha), strict=True):
        assert alpha / len(p_values) * (1 - 1e-12) <= level <= alpha * (1 + 1e-12)
        if abs(adjusted - alpha) > 1e-9:
            assert (p < level) == (adjusted < alpha)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 13, 14, 40])
def test_the_smallest_p_is_reached_by_samples_that_all_point_one_way(n: int) -> None:
    alike = Sampled(np.repeat(np.full(n, 0.4), 2), np.repeat(np.arange(n), 2))
    found = no_difference_test(alike, seed=1)
    assert found >= smallest_sign_flip_p(n) - 1e-12
    assert found == pytest.approx(smallest_sign_flip_p(n), abs=1e-3 if n > 13 else 1e-12)
    one_prompt_each = Sampled(np.ones(n), np.arange(n))
    assert no_difference_test(one_prompt_each, seed=1) == pytest.approx(binomtest(n, n).pvalue)


def test_the_test_equals_scipys_on_sample_means() -> None:
    values = np.array([0.4, 0.2, -0.2, 0.6, 0.0, 0.4, 0.8])
    expected = permutation_test((values,), np.mean, permutation_type="samples").pvalue
    assert no_difference_test(Sampled(np.repeat(values, 5), np.repeat(np.arange(7), 5)), seed=0) == pytest.approx(expected)


def test_the_bound_moves_by_the_test_alone() -> None:
    """z of 0.05 is 1.96 and z of 0.01 is 2.576: Miettinen's lower bound is 0.3 (1 - 1.96 / 2.576)."""
    moved = agreeing(Estimate(0.3, -0.1, 0.7), 0.01, 0.95)
    assert (moved.low, moved.high) == (pytest.approx(0.3 * (1 - 1.959964 / 2.575829), rel=1e-5), 0.7)
    assert agreeing(Estimate(-0.3, -0.7, 0.1), 0.01, 0.95).high == pytest.approx(-moved.low)  # type: ignore[operator]
    widened = agreeing(Estimate(0.3, 0.1, 0.7), 0.2, 0.95)
    assert widened.low == pytest.approx(0.3 * (1 - 1.959964 / 1.281552), rel=1e-5)
    assert agreeing(Estimate(0.3, 0.1, 0.7), 0.01, 0.95) == Estimate(0.3, 0.1, 0.7)


def test_few_tests_share_the_correction_of_primary_comparisons() -> None:
    """Eight samples all better: p is 2 / 2^8 = 0.0078, twelve times which is beyond 0.05, but a primary family has one test here."""
    cells = random_cells(0, 8, 1, 1)
    for key, rows in cells.items():
        rows.score[:] = float(key.arm == "fine_tuned")
    families = {(f.role, f.second): f for f in paired_families(cells, changed_settings())}
    assert [(t.task, t.length) for t in families["primary", "scaling_only"].tests] == [("passkey", 2048)]
    assert [(t.task, t.length) for t in families["primary", "base"].tests] == [("passkey", 512)]
    assert [t.length for t in families["secondary", "base"].tests] == [1024, 2048]
    (test,) = families["primary", "base"].tests
    assert (test.p_holm, test.verdict) == (pytest.approx(2 / 2**8), "first_better")
    assert (
        PairedDifference.of(
            cells[TaskKey("base", "passkey", 512)].scores, cells[TaskKey("base", "passkey", 512)].scores, seed=0
        ).p_value
        == 1
    )


def test_four_samples_are_said_to_be_too_few() -> None:
    cells = random_cells(0, 4, 5, 1)
    for key, rows in cells.items():
        rows.score[:] = float(key.arm == "fine_tuned")
    tests = [test for family in paired_families(cells, changed_settings()) for test in family.tests]
    assert {test.verdict for test in tests} == {"too_few_samples"}, "all four samples are better in every cell"
    for rows in cells.values():
        rows.score[:] = 1.0
    verdicts = {row.verdict for row in non_inferiority({}, cells, changed_settings()).tasks}
    assert verdicts == {"too_few_samples"}, "even equal scores leave a margin of 5 points open"
