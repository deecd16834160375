"""What a comparison of RoPE methods says, computed from its per-sample rows alone.

    {"settings": {...}, "num_documents": n,
     "methods": [{method, cells: [{length, perplexity, low, high}], at_window, against_best, verdict, plan}],
     "refused": {method: sentence}, "best": method, "equally_good": [method],
     "context_gain": {from_length, to_length, ratio, low, high} or null, "findings": [sentence]}

`at_window` is perplexity at the base's window over the unscaled base's there, what short prompts pay; `against_best` is
perplexity at the target over the best method's. Both are paired by document. The best is compared with every other method, so
each of those intervals is at level 1 - (1 - confidence) / comparisons (Bonferroni), and together they hold at `confidence`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.evaluate.statistics import Estimate, perplexity_estimate, perplexity_ratio

BASE = "base"
Comparison = dict[str, Any]


class _Samples:
    """Summed nats a document, documents in one order for every method and length."""

    def __init__(self, table: pa.Table, settings: dict[str, Any]) -> None:
        self._settings = settings
        table = table.sort_by("doc_id")
        self.methods = list(dict.fromkeys(table["arm"].to_pylist()))
        self._nll: dict[tuple[str, int], np.ndarray] = {}
        self.num_tokens = np.empty(0)
        for method in self.methods:
            for length in settings["lengths"]:
                rows = table.filter((pc.field("arm") == method) & (pc.field("length") == length))
                self._nll[method, length] = rows["nll"].to_numpy()
                self.num_tokens = rows["num_tokens"].to_numpy()

    def perplexity(self, method: str, length: int) -> Estimate:
        nll = self._nll[method, length]
        return perplexity_estimate(nll, self.num_tokens, confidence=self._settings["confidence"], seed=self._settings["seed"])

    def ratio(self, over: tuple[str, int], under: tuple[str, int], confidence: float) -> Estimate:
        return perplexity_ratio(
            self._nll[over], self._nll[under], self.num_tokens, confidence=confidence, seed=self._settings["seed"]
        )


def build_comparison(
    samples: pa.Table, settings: dict[str, Any], plans: dict[str, dict[str, str]], refused: dict[str, str]
) -> Comparison:
    """The report of PERPLEXITY_SAMPLES rows whose arm is a method or "base".

    Args:
        settings: `lengths`, `base_window`, `target_length` and `target_tokens` in tokens, `confidence`, `seed`.
        plans: by method, the rows of its RoPE plan.
        refused: by method that does not apply, the reason.
    """
    table = _Samples(samples, settings)
    window, target, confidence = settings["base_window"], settings["target_length"], settings["confidence"]
    scaled = [method for method in table.methods if method != BASE]
    best = min(scaled, key=lambda method: table.perplexity(method, target).value)
    others = [method for method in table.methods if method != best]
    adjusted = 1 - (1 - confidence) / max(1, len(others))
    methods = []
    for method in sorted(table.methods, key=lambda method: table.perplexity(method, target).value):
        against = table.ratio((method, target), (best, target), adjusted)
        methods.append(
            {
                "method": method,
                "cells": [
                    {"length": length, **_json(table.perplexity(method, length), "perplexity")}
                    for length in settings["lengths"]
                ],
                "at_window": _json(table.ratio((method, window), (BASE, window), confidence), "ratio"),
                "against_best": _json(against, "ratio"),
                "verdict": _verdict(method, best, against),
                "plan": plans.get(method, {}),
            }
        )
    report: Comparison = {
        "settings": {**settings, "level_of_each_comparison": adjusted},
        "num_documents": len(table.num_tokens),
        "methods": methods,
        "refused": refused,
        "best": best,
        "equally_good": [m["method"] for m in methods if m["method"] in scaled and m["verdict"] == "not told apart"],
        "context_gain": _context_gain(table, settings),
    }
    report["findings"] = findings(report)
    return report


def _verdict(method: str, best: str, ratio: Estimate) -> str:
    if method == best:
        return "best"
    assert ratio.low is not None
    assert ratio.high is not None
    return "worse" if ratio.low > 1 else "better" if ratio.high < 1 else "not told apart"


def _context_gain(table: _Samples, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What the unscaled base makes of the second half of its own window; None where no shorter length was measured."""
    window = settings["base_window"]
    shorter = [length for length in settings["lengths"] if length < window]
    if not shorter:
        return None
    ratio = table.ratio((BASE, window), (BASE, shorter[-1]), settings["confidence"])
    return {"from_length": shorter[-1], "to_length": window, **_json(ratio, "ratio")}


def findings(report: Comparison) -> list[str]:
    """What to conclude, a sentence each: which is best, whether that is certain, what it costs, whether context helps."""
    settings, best = report["settings"], report["best"]
    target, window = settings["target_length"], settings["base_window"]
    entry = {m["method"]: m for m in report["methods"]}
    value = {m: e["cells"][-1]["perplexity"] for m, e in entry.items()}
    said = [f"{best} is best at {target} tokens without training: perplexity {value[best]:.2f}, unscaled {value[BASE]:.2f}."]
    if report["equally_good"]:
        named = ", ".join(f"{m} ({_interval(entry[m]['against_best'])} of it)" for m in report["equally_good"])
        said.append(
            f"Not told apart from it on these {report['num_documents']} documents, since the paired interval of the ratio "
            f"holds 1: {named}; measure more documents, or choose between them by what serves the model."
        )
    elif len(report["methods"]) > 2:
        said.append("Every other method is worse by more than the paired interval of the difference.")
    if entry[BASE]["verdict"] == "not told apart":
        said.append(f"Scaling is not told apart from none at {target} tokens: these documents do not show a need to extend.")
    elif entry[BASE]["verdict"] == "better":
        said.append(
            f"The unscaled base is better than every method at {target} tokens: its window may be longer than it states."
        )
    cost = entry[best]["at_window"]
    said.append(f"At the base's own window of {window} tokens, {best} has {_interval(cost)} of the unscaled base's perplexity.")
    gain = report["context_gain"]
    if gain:
        span = f"from {gain['from_length']} to {gain['to_length']} tokens of context"
        if gain["high"] < 1:
            said.append(f"The base uses context: {span} its perplexity falls to {_interval(gain)} of what it was.")
        else:
            said.append(
                f"The base gains nothing that shows {span} ({_interval(gain)} of the perplexity): where parts of documents are "
                "as independent as this, chunks with a reorder config serve better than a longer window."
            )
    return said


def comparison_table(report: Comparison) -> tuple[list[str], list[list[str]]]:
    """One row a method, best first: perplexity by context length (an interval at the target), cost at the window, ratio to the best."""
    settings = report["settings"]
    columns = ["method", *map(str, settings["lengths"]), f"over base at {settings['base_window']}", "over best at target", ""]
    rows = []
    for entry in report["methods"]:
        cells = [f"{c['perplexity']:.2f}" for c in entry["cells"]]
        last = entry["cells"][-1]
        cells[-1] += f" [{last['low']:.1f}, {last['high']:.1f}]"
        name = "none" if entry["method"] == BASE else entry["method"]
        window = "" if entry["method"] == BASE else _interval(entry["at_window"])
        against = "" if entry["verdict"] == "best" else _interval(entry["against_best"])
        rows.append([name, *cells, window, against, entry["verdict"]])
    return columns, rows


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['ratio']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"


def _json(estimate: Estimate, name: str) -> dict[str, float | None]:
    return {name: estimate.value, "low": estimate.low, "high": estimate.high}
