"""How often the intervals of task scores hold the truth, over simulated evaluations.

`python -m benchmarks.coverage [--trials 2000] [--json FILE]`. A sample is asked at several depths, and its prompts are alike with a
given intra-class correlation: 0 for independent prompts, 1 for prompts that all come out alike.

- Scores: beta-binomial samples, at several rates. The recorded range is asserted for each cell: 0.93 to 0.98, up to the error
  of the simulation.
- Differences of two models: Dirichlet-multinomial samples, with given shares of prompts better and worse. At least 0.93 is asserted.
  Where the models hardly differ most evaluations hold no difference at all, and coverage is near 1.
- Tests: how often models that do not differ are said to, at 5 %. At most 0.05 is asserted.

The table closes with the width of the intervals against those that count each sample as one prompt, as before.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from pathlib import Path

import numpy as np

from tasks.evaluate.statistics.estimates import wilson_bounds
from tasks.evaluate.statistics.paired_differences import bounded_mean, no_difference_test
from tasks.evaluate.statistics.sampled import Sampled
from tasks.evaluate.statistics.score_estimates import mean_score

CONFIDENCE = 0.95
DEPTHS = 5
SAMPLES = (8, 16, 35)
CORRELATIONS = (0.0, 0.3, 0.6, 0.9)
RATES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
SHARES = ((0.0, 0.05), (0.05, 0.05), (0.2, 0.2), (0.3, 0.1), (0.4, 0.05))  # of prompts better, worse
LEAST, MOST = 0.93, 0.98


def correlated_scores(
    samples: int, depths: int, rate: float, correlation: float, trials: int, rng: np.random.Generator
) -> np.ndarray:
    """Right or wrong, float64 [trials, samples, depths]: beta-binomial with this intra-class correlation, below 1."""
    of_sample = np.full((trials, samples, 1), rate)
    if correlation:
        spread = 1 / correlation - 1
        of_sample = rng.beta(rate * spread, (1 - rate) * spread, (trials, samples, 1))
    return (rng.random((trials, samples, depths)) < of_sample).astype(float)


def correlated_differences(
    samples: int, depths: int, shares: tuple[float, float], correlation: float, trials: int, rng: np.random.Generator
) -> np.ndarray:
    """-1, 0 or 1, float64 [trials, samples, depths]: Dirichlet-multinomial with these shares of 1 and of -1."""
    means = np.array([*shares, 1 - sum(shares)])
    of_sample = np.broadcast_to(means, (trials, samples, 3))
    if correlation:
        drawn = rng.gamma(np.maximum(means, 1e-12) * (1 / correlation - 1), size=(trials, samples, 3))
        of_sample = drawn / np.maximum(drawn.sum(axis=2, keepdims=True), 1e-300)
    coin = rng.random((trials, samples, depths))
    better, worse = of_sample[..., :1], of_sample[..., 1:2]
    return np.where(coin < better, 1.0, np.where(coin < better + worse, -1.0, 0.0))


def _sampled(trial: np.ndarray) -> Sampled:
    """Of [samples, depths]."""
    return Sampled(trial.ravel(), np.repeat(np.arange(len(trial)), trial.shape[1]))


def score_coverage(scores: np.ndarray, truth: float) -> float:
    """The share of trials whose interval of the mean score holds the truth; [trials, samples, depths]."""
    estimates = [mean_score([_sampled(trial)], confidence=CONFIDENCE) for trial in scores]
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))  # type: ignore[operator]


def difference_coverage(differences: np.ndarray, truth: float) -> float:
    """The share of trials whose interval of the mean difference holds the truth; [trials, samples, depths]."""
    estimates = [bounded_mean(_sampled(trial), confidence=CONFIDENCE) for trial in differences]
    return float(np.mean([e.low - 1e-9 <= truth <= e.high + 1e-9 for e in estimates]))  # type: ignore[operator]


def relative_width(scores: np.ndarray) -> float:
    """Mean width of the intervals over that of Wilson's on as many prompts as samples."""
    widths, former = [], []
    for trial in scores:
        estimate = mean_score([_sampled(trial)], confidence=CONFIDENCE)
        low, high = wilson_bounds(float(trial.mean()), len(trial), CONFIDENCE)
        widths.append((estimate.high or 0.0) - (estimate.low or 0.0))
        former.append(high - low)
    return float(np.mean(widths) / np.mean(former))


def false_findings(differences: np.ndarray) -> float:
    """The share of trials in which the test finds a difference at 5 %; [trials, samples, depths]."""
    return float(
        np.mean([no_difference_test(_sampled(trial), seed) < 1 - CONFIDENCE for seed, trial in enumerate(differences)])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="simulated evaluations a cell")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    scores, differences, tests = [], [], []
    for samples, correlation in product(SAMPLES, CORRELATIONS):
        cell = {"samples": samples, "depths": DEPTHS, "correlation": correlation}
        for rate in RATES:
            drawn = correlated_scores(samples, DEPTHS, rate, correlation, args.trials, rng)
            found = {"coverage": score_coverage(drawn, rate), "relative_width": relative_width(drawn[:200])}
            scores.append(cell | {"rate": rate} | found)
        for shares in SHARES:
            drawn = correlated_differences(samples, DEPTHS, shares, correlation, args.trials, rng)
            found = {"coverage": difference_coverage(drawn, shares[0] - shares[1])}
            differences.append(cell | {"better": shares[0], "worse": shares[1]} | found)
        equal = correlated_differences(samples, DEPTHS, (0.15, 0.15), correlation, max(1, args.trials // 20), rng)
        tests.append(cell | {"false_findings": false_findings(equal)})
    figures = {
        "confidence": CONFIDENCE, "trials": args.trials, "scores": scores, "differences": differences, "tests": tests,
    }  # fmt: skip
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    report(figures)


def report(figures: dict) -> None:  # type: ignore[type-arg]
    """The table; AssertionError for a cell out of its range."""
    print(f"{'samples':>7}  {'correlation':>11}  {'scores cover':>14}  {'differences':>14}  {'false':>6}  {'width':>6}")
    for samples, correlation in product(SAMPLES, CORRELATIONS):

        def here(name: str, value: str, samples: int = samples, correlation: float = correlation) -> list[float]:
            return [row[value] for row in figures[name] if (row["samples"], row["correlation"]) == (samples, correlation)]

        scores, differences = here("scores", "coverage"), here("differences", "coverage")
        (false,), widths = here("tests", "false_findings"), here("scores", "relative_width")
        print(
            f"{samples:>7}  {correlation:>11}  {min(scores):>6.3f}–{max(scores):.3f}  {min(differences):>8.3f}–{max(differences):.3f}"
            f"  {false:>6.3f}  {np.mean(widths):>5.2f}x"
        )
        assert min(scores) >= LEAST - _error(LEAST, figures["trials"]), (samples, correlation, scores)
        assert max(scores) <= MOST + _error(MOST, figures["trials"]), (samples, correlation, scores)
        assert min(differences) >= LEAST - _error(LEAST, figures["trials"]), (samples, correlation, differences)
        assert false <= 0.05 + _error(0.05, max(1, figures["trials"] // 20)), (samples, correlation, false)


def _error(share: float, trials: int) -> float:
    """Three standard errors of a share of trials."""
    return 3 * math.sqrt(share * (1 - share) / trials)


if __name__ == "__main__":
    main()
