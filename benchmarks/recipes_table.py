"""The table of `benchmarks.recipes` from what its arms wrote."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipes_arms import families_of

CONFIDENCE = 0.95
RESAMPLES_SEED = 0
_PROMPT = ("task", "length", "sample", "depth")


def table_of(folder: Path, arms: Sequence[str]) -> dict[str, Any]:
    """Every figure of the finished arms, with the scaled and the plain base in front."""
    import torch

    scaling_only, base = Measured.read(folder, "scaling_only"), Measured.read(folder, "base")
    longest, window = max(scaling_only.lengths), min(scaling_only.lengths)
    rows = [_row(name, Measured.read(folder, name), scaling_only, base, longest, window) for name in ("scaling_only", *arms)]
    return {
        "machine": f"{platform.machine()}, 1 thread an arm, bf16 where the processor has it, torch {torch.__version__}",
        "length": longest,
        "window": window,
        "arms": rows,
    }


class Measured:
    """All seeds of an arm: samples by document or prompt, averaged over the seeds."""

    def __init__(self, results: list[dict[str, Any]], samples: list[Any]) -> None:
        self.results = results
        self.nll = [_by_key(one.perplexity, ("length", "doc_id"), "nll") for one in samples]
        self.num_tokens = _by_key(samples[0].perplexity, ("length", "doc_id"), "num_tokens")
        self.scores = [_by_key(one.task, _PROMPT, "score") for one in samples]
        self.gains = [_by_key(one.task, _PROMPT, "gain") for one in samples]
        self.lengths = {length for length, _ in self.num_tokens}
        self.tasks = sorted({key[0] for key in self.scores[0]})

    @classmethod
    def read(cls, folder: Path, arm: str) -> Measured:
        from tasks.evaluate.sample_set import Samples

        places = sorted(path.parent for path in folder.glob("*/result.json") if path.parent.name.rsplit("-", 1)[0] == arm)
        results = [json.loads((place / "result.json").read_text()) for place in places]
        return cls(results, [Samples.read(place / "samples") for place in places])

    def mean_nll(self, length: int) -> dict[str, float]:
        keys = [key for key in self.num_tokens if key[0] == length]
        return {key[1]: float(np.mean([nll[key] for nll in self.nll])) for key in keys}

    def score_by_sample(self, task: str, length: int) -> dict[int, dict[Any, float]]:
        """{sample: {depth: score averaged over the seeds}}"""
        return _by_sample(self.scores, task, length)

    def gain_by_sample(self, task: str, length: int) -> dict[int, dict[Any, float]]:
        """{sample: {depth: recall gain in nats averaged over the seeds}}"""
        return _by_sample(self.gains, task, length)


def _by_sample(seeds: list[dict[Any, float]], task: str, length: int) -> dict[int, dict[Any, float]]:
    found: dict[int, dict[Any, float]] = {}
    for key in seeds[0]:
        if key[:2] == (task, length):
            found.setdefault(key[2], {})[key[3]] = float(np.mean([values[key] for values in seeds]))
    return found


def _by_key(table: Any, names: tuple[str, ...], value: str) -> dict[tuple[Any, ...], float]:
    columns = [table[name].to_pylist() for name in (*names, value)]
    return {row[:-1]: row[-1] for row in zip(*columns, strict=True)}


def _row(name: str, arm: Measured, scaling_only: Measured, base: Measured, longest: int, window: int) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": name, "num_seeds": len(arm.results)}
    if trained := [result["training"] for result in arm.results if "training" in result]:
        row |= {key: round(float(np.mean([one[key] for one in trained]))) for key in ("steps", "tokens_per_s", "peak_bytes")}
        row["processor_seconds"] = [one["processor_seconds"] for one in trained]
    row["perplexity_over_scaling_only"] = ratio(arm, scaling_only, longest)
    row["seeds"] = [
        round(_ratio_of(arm.nll[i], scaling_only.nll[0], arm.num_tokens, longest), 4) for i in range(len(arm.results))
    ]
    row["perplexity_over_base_at_its_window"] = ratio(arm, base, window)
    row["tasks"] = {
        f"{task}@{length}": score(arm, scaling_only, task, length) for task in arm.tasks for length in (window, longest)
    }
    trained_families = families_of(name)
    row["families"] = {
        family: {"right": round(float(np.mean(shares)), 4), "trained": family in trained_families}
        for family, shares in _family_shares(arm.results).items()
    }
    return row


def ratio(arm: Measured, other: Measured, length: int) -> list[float | None]:
    """[ratio, low, high], paired over documents."""
    from tasks.evaluate.statistics.estimates import perplexity_ratio

    own, of_other = arm.mean_nll(length), other.mean_nll(length)
    tokens = np.array([arm.num_tokens[length, doc_id] for doc_id in own])
    pairs = np.array([(own[doc_id], of_other[doc_id]) for doc_id in own])
    found = perplexity_ratio(pairs[:, 0], pairs[:, 1], tokens, confidence=CONFIDENCE, seed=RESAMPLES_SEED)
    return [_rounded(found.value), _rounded(found.low), _rounded(found.high)]


def _ratio_of(own: dict[Any, float], other: dict[Any, float], num_tokens: dict[Any, float], length: int) -> float:
    keys = [key for key in own if key[0] == length]
    nats = sum(own[key] - other[key] for key in keys)
    return float(np.exp(nats / sum(num_tokens[key] for key in keys)))


def score(arm: Measured, scaling_only: Measured, task: str, length: int) -> dict[str, Any]:
    """Mean score and mean recall gain in nats; both by depth, and as differences to scaling alone with intervals over samples."""
    own = arm.score_by_sample(task, length)
    if not own:
        return {}
    gains, of_other = arm.gain_by_sample(task, length), scaling_only.gain_by_sample(task, length)
    return {
        "score": round(float(np.mean([list(scores.values()) for scores in own.values()])), 4),
        "by_depth": _mean_by_depth(own),
        "over_scaling_only": _difference(own, scaling_only.score_by_sample(task, length)),
        "gain": round(float(np.mean([list(values.values()) for values in gains.values()])), 2),
        "gain_by_depth": _mean_by_depth(gains),
        "gain_over_scaling_only": _difference(gains, of_other),
    }


def _mean_by_depth(values: dict[int, dict[Any, float]]) -> list[float]:
    depths = list(next(iter(values.values())))
    return [round(float(np.mean([of_sample[depth] for of_sample in values.values()])), 3) for depth in depths]


def _difference(own: dict[int, dict[Any, float]], other: dict[int, dict[Any, float]]) -> list[float | None]:
    """[own minus other, low, high], paired over samples."""
    from tasks.evaluate.statistics.estimates import mean_with_t_interval

    differences = [np.mean(list(own[sample].values())) - np.mean(list(other[sample].values())) for sample in own]
    found = mean_with_t_interval(differences, CONFIDENCE)
    return [_rounded(found.value), _rounded(found.low), _rounded(found.high)]


def _family_shares(results: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Of each kind the share of right answers of each document and seed."""
    families = list(dict.fromkeys(family for result in results for family in result["families"]))
    return {
        family: [float(np.mean(document)) for result in results for document in result["families"].get(family, [])]
        for family in families
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def print_table(table: dict[str, Any]) -> None:
    longest, window = table["length"], table["window"]
    tasks = [name for name, score in table["arms"][0]["tasks"].items() if score and name.endswith(f"@{longest}")]
    families = list(table["arms"][0]["families"])
    print(
        f"{table['machine']}; perplexity at {longest} over scaling only, at {window} over the base; families on held-out text"
    )
    print(
        f"{'arm':<20} {'n':>2} {'steps':>5} {'tok/s':>6} {'GB':>5} {'perplexity':>22} {'short':>6} "
        + " ".join(f"{task:>22}" for task in tasks)
        + " "
        + " ".join(f"{f'gain of {task}':>24}" for task in tasks)
        + " "
        + " ".join(f"{family:>16}" for family in families)
    )
    for row in table["arms"]:
        low_high = row["perplexity_over_scaling_only"]
        print(
            f"{row['arm']:<20} {row['num_seeds']:>2} {row.get('steps', 0):>5} {row.get('tokens_per_s', 0):>6} "
            f"{row.get('peak_bytes', 0) / 1e9:>5.1f} {low_high[0]:>8.3f} [{low_high[1]:.3f}, {low_high[2]:.3f}] "
            f"{row['perplexity_over_base_at_its_window'][0]:>6.3f} "
            + " ".join(f"{row['tasks'][task]['score']:>7.0%} {_by_depth(row['tasks'][task]['by_depth']):>14}" for task in tasks)
            + " "
            + " ".join(f"{'/'.join(f'{nats:.1f}' for nats in row['tasks'][task]['gain_by_depth']):>24}" for task in tasks)
            + " "
            + " ".join(f"{_share(row['families'].get(family)):>16}" for family in families)
        )


def _by_depth(scores: list[float]) -> str:
    return "/".join(f"{score * 100:.0f}" for score in scores)


def _share(found: dict[str, Any] | None) -> str:
    return "-" if found is None else f"{found['right']:.0%}{' trained' if found['trained'] else ''}"
