"""The evaluation report, computed from the per-sample rows alone, so that anybody can recompute every figure.

    {"schema_version": 1,
     "settings": {...},
     "perplexity": [{arm, length, num_documents, num_tokens, perplexity, low, high}],
     "comparisons": [{name, numerator: {arm, length}, denominator: {arm, length}, ratio, low, high, num_documents}],
     "effective_context_length": {"criterion", "margin", "arms": {arm: tokens or null}},
     "passkey": [{arm, length, depth, n, accuracy, low, high, gain, gain_low, gain_high}],
     "recall_by_position": [{arm, length, depth, n, recall, low, high, gain, gain_low, gain_high}]}

Perplexities are token-weighted, gains are nats per answer, depths lie in [0, 1]. Bounds are null where one sample
allows none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.evaluate.samples import ARMS
from tasks.evaluate.statistics import (
    RESAMPLES,
    Estimate,
    is_non_inferior,
    mean_with_t_interval,
    perplexity_estimate,
    perplexity_ratio,
    wilson_rate,
)

SCHEMA_VERSION = 1
# How far perplexity may lie above the base's at its own window for a length to count as usable.
EFFECTIVE_LENGTH_MARGIN = 0.05

Report = dict[str, Any]
Cell = tuple[str, int]  # arm, context length


def build_report(perplexity: pa.Table, passkey: pa.Table, settings: dict[str, Any]) -> Report:
    """The report of PERPLEXITY_SAMPLES and PASSKEY_SAMPLES rows.

    Args:
        settings: written into the report; `base_window` and `target_length` (tokens), `confidence` and `seed` are used.
    """
    cells = _documents_by_cell(perplexity)
    grid = _passkey_cells(passkey, settings["confidence"])
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": {**settings, "bootstrap_resamples": RESAMPLES},
        "perplexity": [_perplexity_cell(cell, rows, settings) for cell, rows in cells.items()],
        "comparisons": list(_comparisons(cells, settings)),
        "effective_context_length": _effective_context_lengths(cells, settings),
        "passkey": grid,
        "recall_by_position": _recall_by_position(grid),
    }


def find_comparison(report: Report, numerator: Cell, denominator: Cell) -> dict[str, Any] | None:
    """The comparison of two (arm, length) cells, or None where it was not measured."""
    for row in report["comparisons"]:
        if (row["numerator"]["arm"], row["numerator"]["length"]) == numerator:
            if (row["denominator"]["arm"], row["denominator"]["length"]) == denominator:
                found: dict[str, Any] = row
                return found
    return None


def _documents_by_cell(table: pa.Table) -> dict[Cell, pa.Table]:
    """Rows of each (arm, length), ordered by document, which is checked to be the same everywhere."""
    arms, lengths = table["arm"].to_numpy(zero_copy_only=False), table["length"].to_numpy()
    cells = {
        (arm, int(length)): table.filter((arms == arm) & (lengths == length)).sort_by("doc_id")
        for arm in _in_order(arms)
        for length in np.unique(lengths[arms == arm])
    }
    targets = [rows.select(["doc_id", "target_start", "num_tokens"]) for rows in cells.values()]
    if any(not rows.equals(targets[0]) for rows in targets):
        raise ValueError("the perplexity samples do not hold the same targets for every arm and length")
    return cells


def _in_order(arms: Iterable[str]) -> list[str]:
    present = set(arms)
    return [arm for arm in ARMS if arm in present]


def _perplexity_cell(cell: Cell, rows: pa.Table, settings: dict[str, Any]) -> dict[str, Any]:
    nll, num_tokens = rows["nll"].to_numpy(), rows["num_tokens"].to_numpy()
    estimate = perplexity_estimate(nll, num_tokens, confidence=settings["confidence"], seed=settings["seed"])
    return {
        "arm": cell[0],
        "length": cell[1],
        "num_documents": len(nll),
        "num_tokens": int(num_tokens.sum()),
        "perplexity": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
    }


def _ratio(cells: dict[Cell, pa.Table], numerator: Cell, denominator: Cell, settings: dict[str, Any]) -> Estimate:
    return perplexity_ratio(
        cells[numerator]["nll"].to_numpy(),
        cells[denominator]["nll"].to_numpy(),
        cells[numerator]["num_tokens"].to_numpy(),
        confidence=settings["confidence"],
        seed=settings["seed"],
    )


def _comparisons(cells: dict[Cell, pa.Table], settings: dict[str, Any]) -> Iterable[dict[str, Any]]:
    window, target = settings["base_window"], settings["target_length"]
    pairs: list[tuple[Cell, Cell]] = [
        (("fine_tuned", target), ("scaling_only", target)),
        (("fine_tuned", target), ("base", target)),
        (("fine_tuned", target), ("base", window)),
        (("fine_tuned", window), ("base", window)),
        (("scaling_only", target), ("base", window)),
        (("base", target), ("base", window)),
    ]
    for numerator, denominator in dict.fromkeys(pairs):
        if numerator == denominator or numerator not in cells or denominator not in cells:
            continue
        ratio = _ratio(cells, numerator, denominator, settings)
        yield {
            "name": f"{numerator[0]}@{numerator[1]} vs {denominator[0]}@{denominator[1]}",
            "numerator": {"arm": numerator[0], "length": numerator[1]},
            "denominator": {"arm": denominator[0], "length": denominator[1]},
            "ratio": ratio.value,
            "low": ratio.low,
            "high": ratio.high,
            "num_documents": cells[numerator].num_rows,
        }


def _effective_context_lengths(cells: dict[Cell, pa.Table], settings: dict[str, Any]) -> dict[str, Any]:
    """For each arm the longest length up to which, from the base's window on, perplexity stays within the margin."""
    window = settings["base_window"]
    reference = ("base", window)
    arms: dict[str, int | None] = {}
    if reference in cells:
        for arm in _in_order(arm for arm, _ in cells):
            arms[arm] = None
            for length in sorted(length for a, length in cells if a == arm and length >= window):
                if not is_non_inferior(_ratio(cells, (arm, length), reference, settings), EFFECTIVE_LENGTH_MARGIN):
                    break
                arms[arm] = length
    return {
        "criterion": "longest measured length, from the base's window on and with no failing one below it, where the upper "
        "bound of perplexity over the base's perplexity at its window is below 1 + margin",
        "margin": EFFECTIVE_LENGTH_MARGIN,
        "arms": arms,
    }


def _passkey_cells(table: pa.Table, confidence: float) -> list[dict[str, Any]]:
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in ("arm", "length", "depth", "correct", "gain")}
    cells = []
    for arm in _in_order(columns["arm"]):
        of_arm = columns["arm"] == arm
        for length in np.unique(columns["length"][of_arm]):
            of_length = of_arm & (columns["length"] == length)
            for depth in np.unique(columns["depth"][of_length]):
                here = of_length & (columns["depth"] == depth)
                n = int(here.sum())
                accuracy = wilson_rate(int(columns["correct"][here].sum()), n, confidence)
                gain = mean_with_t_interval(columns["gain"][here], confidence)
                cells.append(
                    {"arm": arm, "length": int(length), "depth": float(depth), "n": n}
                    | {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
                    | {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
                )
    return cells


def _recall_by_position(grid: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The grid of the model that would be served: fine-tuned, else scaling only, else the base."""
    measured = _in_order(cell["arm"] for cell in grid)
    return [
        {("recall" if key == "accuracy" else key): value for key, value in cell.items()}
        for cell in grid
        if cell["arm"] == measured[-1]
    ]
