"""Values of prompts, grouped by the sample that each belongs to, and how much the prompts of a sample tell.

The prompts of a sample (one for each depth) share haystack, needle and question, so they are alike. The design effect says how much:
it is 1 where they are independent, and the number of prompts a sample where they all come out alike. A mean over N prompts with
design effect D is as certain as one over N / D independent prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_NO_VARIANCE = 1e-12
# Estimates err on both sides. With the limit at the number of prompts, intervals of independent prompts would be too wide.
_MOST_PER_PROMPT = 1.25


@dataclass(frozen=True)
class Sampled:
    """Values of prompts and the sample that each belongs to: `values` float64 [prompts], `samples` int [prompts]."""

    values: np.ndarray
    samples: np.ndarray

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum and number of the values of each sample, [samples]."""
        _, place = np.unique(self.samples, return_inverse=True)
        return np.bincount(place, weights=self.values), np.bincount(place)

    def means(self) -> np.ndarray:
        """Mean value of each sample, [samples]."""
        sums, counts = self.totals()
        means: np.ndarray = sums / counts
        return means

    def present(self) -> Sampled:
        """Those that are not NaN."""
        kept = ~np.isnan(self.values)
        return Sampled(self.values[kept], self.samples[kept])

    def num_equal_samples(self) -> float:
        """How many samples with equal numbers of prompts have a mean as variable as these (Kish 1965)."""
        counts = self.totals()[1]
        return float(counts.sum() ** 2 / (counts**2).sum())

    def variance_of_mean(self) -> float:
        """Variance of the mean value, from the differences between samples; 0 for a single sample.

        The cluster-robust estimate CR3 (Bell & McCaffrey 2002): for n samples of equal size it is the variance of their means over
        n - 1. The usual one, over n, is too small for few samples.
        """
        sums, counts = self.totals()
        if len(sums) < 2:
            return 0.0
        total = counts.sum()
        residuals = (sums - counts * (sums.sum() / total)) / (1 - counts / total)
        return float((residuals**2).sum() / total**2)

    def effective_prompts(self, prompt_variance: float) -> float:
        """How many independent prompts have a mean as certain as these; `prompt_variance` is that of one value, such as p (1 - p).

        From the number of samples, where all prompts of a sample come out alike, to 1.25 times the number of prompts. A single
        prompt a sample is exactly one. Where all values are the same, the design effect cannot be estimated, and each sample counts
        as one prompt.
        """
        samples, prompts = self.num_equal_samples(), float(len(self.values))
        num_samples = len(np.unique(self.samples))
        if prompt_variance < _NO_VARIANCE or num_samples < 2 or num_samples == prompts:
            return samples
        variance = max(self.variance_of_mean(), _NO_VARIANCE)
        return float(np.clip(prompt_variance / variance, samples, _MOST_PER_PROMPT * prompts))
