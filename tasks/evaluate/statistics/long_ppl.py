"""LongPPL: perplexity on the tokens that need long context (Fang et al. 2024, arXiv 2410.23771).

A token is a key token when long context helps it, log P(token | long) - log P(token | short) > 2 nats, and it is well
predicted with long context, log P(token | long) > -2 nats; both by one frozen evaluator, so that every model is judged
on the same tokens. Two differences from the paper: only the target tokens of perplexity can be key tokens, and the
evaluator is one of the compared models, so its own figure is favoured by the choice. By default each extended model is the
evaluator in turn: a model that is better by both choices does not owe that to the choice.

Key tokens are those that need more than the short context, so only the lengths above it have a figure.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data_schemas.report import EvaluationSettings
from data_schemas.report_sections import LongPpl, LongPplRow
from tasks.evaluate.statistics.estimates import perplexity_estimate
from tasks.evaluate.statistics.perplexity_rows import Cell

GAIN_THRESHOLD = 2.0  # LSD, long-short difference
LOGPROB_THRESHOLD = -2.0  # LCL, long-context likelihood
EACH = "each"
_EXTENDED = ("scaling_only", "fine_tuned")
MIN_KEY_TOKENS = 30
MIN_DOCUMENTS = 2


def key_tokens(long_logprobs: np.ndarray, short_logprobs: np.ndarray) -> np.ndarray:
    """Which tokens need long context, bool in the arguments' shape; the arguments are nats."""
    mask: np.ndarray = (long_logprobs - short_logprobs > GAIN_THRESHOLD) & (long_logprobs > LOGPROB_THRESHOLD)
    return mask


def long_ppl(cells: dict[Cell, pa.Table], settings: EvaluationSettings) -> LongPpl:
    """LongPPL of every arm and each length above the short context, or a reason why there is none.

    Args:
        cells: PERPLEXITY_SAMPLES rows by (arm, length), ordered by document.
        settings: `longppl_evaluator` names the arm that chooses the key tokens, or `each`; `base_window` is the short context in
            tokens.
    """
    if settings.longppl_evaluator != EACH:
        return _by_evaluator(cells, settings.longppl_evaluator, settings)
    measured = {cell.arm for cell in cells}
    evaluators = [arm for arm in _EXTENDED if arm in measured] or [_EXTENDED[0]]
    first, *others = (_by_evaluator(cells, evaluator, settings) for evaluator in evaluators)
    return first.model_copy(update={"others": tuple(others)}) if others else first


def _by_evaluator(cells: dict[Cell, pa.Table], evaluator: str | None, settings: EvaluationSettings) -> LongPpl:
    lengths = sorted(cell.length for cell in cells if cell.arm == evaluator)
    if not evaluator:
        return _without_key_tokens(evaluator, "not asked for")
    if len(lengths) < 2:
        return _without_key_tokens(evaluator, f"{evaluator} was not measured at two context lengths")
    long, short = lengths[-1], _short_length(lengths, settings.base_window)
    long_rows, short_rows = cells[Cell(evaluator, long)], cells[Cell(evaluator, short)]
    masks = [key_tokens(a, b) for a, b in zip(_logprobs(long_rows), _logprobs(short_rows), strict=True)]
    counts = np.array([mask.sum() for mask in masks])
    reason = _why_not(counts)
    return LongPpl(
        evaluator=evaluator,
        long=long,
        short=short,
        num_key_tokens=int(counts.sum()),
        num_documents=int((counts > 0).sum()),
        reason=reason,
        cells=() if reason else tuple(_row(cell, rows, masks, settings) for cell, rows in cells.items() if cell.length > short),
    )


def _without_key_tokens(evaluator: str | None, reason: str) -> LongPpl:
    return LongPpl(evaluator=evaluator, long=None, short=None, num_key_tokens=0, num_documents=0, reason=reason, cells=())


def _why_not(counts: np.ndarray) -> str | None:
    """Why these key tokens, counted by document, are too few; None where they are enough."""
    if counts.sum() < MIN_KEY_TOKENS:
        return f"only {counts.sum()} key tokens, fewer than {MIN_KEY_TOKENS}"
    if (counts > 0).sum() < MIN_DOCUMENTS:
        return f"all {counts.sum()} key tokens stand in one document"
    return None


def _short_length(lengths: list[int], base_window: int) -> int:
    return base_window if base_window in lengths and base_window < lengths[-1] else lengths[0]


def _logprobs(rows: pa.Table) -> list[np.ndarray]:
    return [np.asarray(values, np.float64) for values in rows["logprobs"].to_pylist()]


def _row(cell: Cell, rows: pa.Table, masks: list[np.ndarray], settings: EvaluationSettings) -> LongPplRow:
    nll = np.array([-values[mask].sum() for values, mask in zip(_logprobs(rows), masks, strict=True)])
    counts = np.array([mask.sum() for mask in masks])
    kept = counts > 0
    estimate = perplexity_estimate(nll[kept], counts[kept], confidence=settings.confidence, seed=settings.seed)
    return LongPplRow(arm=cell.arm, length=cell.length, longppl=estimate.value, low=estimate.low, high=estimate.high)
