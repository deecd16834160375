"""What a number of samples can show, against what the tests find in simulated evaluations."""

import math
from itertools import product

import numpy as np
import pytest

from benchmarks.coverage import correlated_differences
from data_schemas.evaluation_params import EvaluationParams
from tasks.evaluate.power.best_case import fewest_for_a_test, fewest_for_the_margin, smallest_p
from tasks.evaluate.power.paired_test_power import CORRELATION, DISCORDANT, power_of
from tasks.evaluate.power.plan import planned_power
from tasks.evaluate.power.sample_size import POWER, chosen_samples, detectable, samples_to_find
from tasks.evaluate.power.sentences import power_lines
from tasks.evaluate.statistics.hypothesis_tests import holm
from tasks.evaluate.statistics.non_inferiority import lower_bound_of_equal
from tasks.evaluate.statistics.paired_differences import no_difference_test
from tasks.evaluate.statistics.sampled import Sampled
from tests.tasks.evaluation_rows import changed_settings

ASKED = {
    "arms": ("base", "scaling_only", "fine_tuned"),
    "tasks": ("passkey", "key_value"),
    "task_lengths": {"passkey": (256, 512, 1024, 2048), "key_value": (256, 512, 1024, 2048)},
    "num_depths": 5,
    "reorder_samples": 16,
    "detectable_effect": 15.0,
}


@pytest.mark.parametrize(("samples", "family", "effect"), [(8, 1, 0.45), (8, 6, 0.6), (12, 1, 0.3), (12, 3, 0.35)])
@pytest.mark.parametrize("depths", [1, 5])
def test_power_is_that_of_the_test_in_simulated_evaluations(samples: int, family: int, effect: float, depths: int) -> None:
    trials = 300
    shares = ((DISCORDANT + effect) / 2, (DISCORDANT - effect) / 2) if effect < DISCORDANT else (effect, 0.0)
    drawn = correlated_differences(samples, depths, shares, CORRELATION, trials, np.random.default_rng(samples))
    of_prompt = np.repeat(np.arange(samples), depths)
    found = np.mean([no_difference_test(Sampled(trial.ravel(), of_prompt), 0) < 0.05 / family for trial in drawn])
    predicted = power_of(samples, effect, prompts=depths, family_size=family, confidence=0.95)
    assert predicted == pytest.approx(found, abs=0.03 + 3 * math.sqrt(0.25 / trials))


def test_many_samples_have_the_power_that_was_simulated() -> None:
    """34 samples of five depths, 20 points, two tests: 0.84 of 150 simulated evaluations by sign flips."""
    assert power_of(34, 0.2, prompts=5, family_size=2, confidence=0.95) == pytest.approx(0.84, abs=0.09)


@pytest.mark.parametrize(("effect", "prompts", "family"), list(product((0.15, 0.4), (1, 5), (1, 8))))
def test_samples_to_find_an_effect_are_the_fewest_with_80_percent_power(effect: float, prompts: int, family: int) -> None:
    found = samples_to_find(effect, prompts=prompts, family_size=family, confidence=0.95)
    assert found is not None
    assert power_of(found, effect, prompts=prompts, family_size=family, confidence=0.95) >= POWER
    assert power_of(found - 1, effect, prompts=prompts, family_size=family, confidence=0.95) < POWER
    smallest = detectable(found, prompts=prompts, family_size=family, confidence=0.95)
    assert smallest is not None
    assert smallest <= effect


@pytest.mark.parametrize("family", [1, 2, 6, 7, 12])
def test_the_smallest_p_is_that_of_samples_that_all_point_one_way(family: int) -> None:
    for samples in (4, 8, 9):
        alike = no_difference_test(Sampled(np.full(2 * samples, 0.5), np.repeat(np.arange(samples), 2)), 0)
        assert smallest_p(samples, family) == pytest.approx(max(holm([alike] * family)))
    fewest = fewest_for_a_test(family, 0.05)
    assert fewest is not None
    assert smallest_p(fewest, family) < 0.05 <= smallest_p(fewest - 1, family)


def test_a_family_of_too_many_tests_can_show_nothing() -> None:
    assert fewest_for_a_test(1000, 0.05) is None
    assert power_of(10_000, 0.9, prompts=5, family_size=1000, confidence=0.95) == 0


def test_equal_scores_pass_the_margin_from_73_samples_on() -> None:
    assert fewest_for_the_margin(0.05, 0.95) == 73
    assert lower_bound_of_equal(72, 0.95) <= -0.05 < lower_bound_of_equal(73, 0.95)


def test_the_plan_names_what_eight_samples_can_show() -> None:
    power = planned_power(changed_settings(**ASKED, num_samples=8))
    assert power is not None
    found = {planned.name: planned for planned in power.comparisons}
    primary = found["fine-tuned against scaling only at the longest length"]
    assert (primary.family_size, primary.can_show, primary.smallest_p) == (2, True, pytest.approx(2 * 2 / 2**8))
    assert (primary.detectable, primary.samples_for_effect) == (0.57, 61)
    others = found["fine-tuned against base at all other lengths"]
    assert (others.family_size, others.smallest_p) == (6, pytest.approx(6 * 2 / 2**8))
    margin = found["no loss of 5 points of score at the base's window"]
    assert (margin.can_show, margin.fewest_samples) == (False, 73)
    assert len(power.comparisons) == 6


def test_a_comparison_that_can_show_nothing_is_said_in_one_sentence() -> None:
    power = planned_power(changed_settings(**ASKED, num_samples=4))
    assert power is not None
    lines = power_lines(power)
    assert lines[0] == (
        "fine-tuned against scaling only at the longest length: 4 samples can show no difference, whatever is measured: p is 0.25 at "
        "best after Holm over 2 tests; at least 7 are needed"
    )
    assert "cannot show it for equal scores: the lower bound of equal scores is -49 points; at least 73 samples" in "\n".join(
        lines
    )


def test_samples_are_chosen_to_find_the_stated_effect() -> None:
    assert chosen_samples(EvaluationParams()) == 61
    assert chosen_samples(EvaluationParams(num_samples=3)) == 3
    assert chosen_samples(EvaluationParams(detectable_effect=35)) == 11
    assert chosen_samples(EvaluationParams(tasks=("common_words",))) == 123


def test_settings_of_older_versions_have_no_plan() -> None:
    assert planned_power(changed_settings(num_samples=8)) is None
