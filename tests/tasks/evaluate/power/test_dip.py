"""How many samples find a dip of recall in the middle, against the test that the report does."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluate.power.dip import DIP, detectable_dip, dip_line, samples_to_find_dip
from tasks.evaluate.statistics import hypothesis_tests
from tests.tasks.evaluation_rows import changed_settings

ASKED = {
    "tasks": ("passkey", "common_words"),
    "task_lengths": {"passkey": (256, 512), "common_words": (256, 512)},
    "num_depths": 5,
    "num_samples": 16,
    "target_length": 512,
    "confidence": 0.95,
}


def curves(num_samples: int, depths: int, dip: float, rng: np.random.Generator) -> np.ndarray:
    """Scores of 0 and 1, [samples, depths]: one half on average, `dip` lower between the ends."""
    mean = np.full(depths, 0.5 - dip / 2)
    mean[[0, -1]] = 0.5 + dip / 2
    return (rng.random((num_samples, depths)) < mean).astype(float)


@pytest.mark.parametrize("depths", [5, 11])
def test_the_samples_find_the_dip_in_simulated_evaluations(depths: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypothesis_tests, "PERMUTATIONS", 399)
    rng = np.random.default_rng(depths)
    needed = samples_to_find_dip(0.2, depths=depths, family_size=1, confidence=0.95)
    found = np.mean([hypothesis_tests.depth_permutation_test(curves(needed, depths, 0.2, rng), 0) < 0.05 for _ in range(300)])
    assert found == pytest.approx(0.8, abs=0.07)


def test_samples_and_dips_are_two_sides_of_one_rule() -> None:
    needed = samples_to_find_dip(DIP, depths=5, family_size=1, confidence=0.95)
    assert needed == 164
    assert detectable_dip(needed, depths=5, family_size=1, confidence=0.95) <= DIP
    assert detectable_dip(needed - 1, depths=5, family_size=1, confidence=0.95) > DIP
    assert samples_to_find_dip(DIP, depths=11, family_size=1, confidence=0.95) < needed
    assert samples_to_find_dip(DIP, depths=5, family_size=8, confidence=0.95) > needed


def test_the_evaluation_says_how_many_samples_a_dip_of_ten_points_needs() -> None:
    assert dip_line(changed_settings(**ASKED)) == (
        "recall by position at 512 tokens: 16 samples at 5 depths find dips from 36 points in the middle (80 % power, Holm over "
        "2 tests); 10 points need 199 samples"
    )
    line = dip_line(changed_settings(**ASKED | {"target_length": 2048}))
    assert line is not None
    assert line.endswith("the served length of 2048 is not measured: add it to evaluation.task_lengths")
    line = dip_line(changed_settings(**ASKED | {"num_depths": 2}))
    assert line is not None
    assert "2 depths show no dip in the middle; at least 3 are needed" in line
    assert dip_line(changed_settings(**ASKED | {"task_lengths": {"common_words": (512,)}})) is None
