"""Rows of made-up evaluations, in the schemas of the real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_schemas.report import EvaluationSettings
from data_schemas.samples import PERPLEXITY_SAMPLES, POSITION_SAMPLES, PROTOCOL_SAMPLES, REORDER_SAMPLES, TASK_SAMPLES

ARMS = ("base", "scaling_only", "fine_tuned")
SETTINGS = EvaluationSettings(
    base_window=512,
    target_length=2048,
    target_tokens=100,
    confidence=0.95,
    seed=0,
    non_inferiority_margin=0.05,
    longppl_evaluator="scaling_only",
)


def changed_settings(**changes: Any) -> EvaluationSettings:
    """SETTINGS with other values."""
    return EvaluationSettings.model_validate(SETTINGS.model_dump(exclude_unset=True) | changes)


# (arm, task, length, depth, sample) -> score in [0, 1]
Score = Callable[[str, str, int, float | None, int], float]


def perplexity_table(
    nats: Callable[[str, int, int], float],
    arms: Sequence[str],
    lengths: Sequence[int],
    num_documents: int,
    num_tokens: int = 100,
) -> pa.Table:
    """Each document's tokens all have the log-probability -nats(arm, length, document)."""
    rows = [
        {"arm": arm, "length": length, "doc_id": f"d{d:02}", "target_start": 5000 + d, "num_tokens": num_tokens}
        | {"nll": num_tokens * nats(arm, length, d), "logprobs": [-nats(arm, length, d)] * num_tokens}
        for arm in arms
        for length in lengths
        for d in range(num_documents)
    ]
    return pa.Table.from_pylist(rows, schema=PERPLEXITY_SAMPLES)


def task_table(
    score: Score,
    *,
    arms: Sequence[str] = ARMS,
    tasks: Sequence[str] = ("passkey",),
    lengths: Sequence[int] = (512, 2048),
    depths: Sequence[float | None] = (0.0, 0.5, 1.0),
    num_samples: int = 5,
    gain: Score | None = lambda arm, task, length, depth, sample: 1.0 + sample,
) -> pa.Table:
    """A row for each combination; the prompt of a row depends on everything but the arm."""
    rows = []
    for arm in arms:
        for task in tasks:
            for length in lengths:
                for depth in depths:
                    for s in range(num_samples):
                        value = score(arm, task, length, depth, s)
                        rows.append(_task_row(arm, task, length, depth, s, value, gain and gain(arm, task, length, depth, s)))
    return pa.Table.from_pylist(rows, schema=TASK_SAMPLES)


def _task_row(
    arm: str, task: str, length: int, depth: float | None, sample: int, score: float, gain: float | None
) -> dict[str, Any]:
    identity = f"{task} {length} {depth} {sample}".encode()
    return {
        "arm": arm,
        "task": task,
        "length": length,
        "depth": depth,
        "position": depth,
        "sample": sample,
        "seed": sample,
        "prompt_hash": hashlib.sha256(identity).hexdigest()[:16],
        "prompt_tokens": length - 4,
        "golds": ["12345"],
        "output": "12345" if score == 1 else "1",
        "mode": "forced",
        "score": score,
        "correct": score == 1,
        "logprob": -10.0 + (gain or 0.0),
        "control_logprob": None if gain is None else -10.0,
        "gain": gain,
    }


def position_table(nats: Callable[[str, int], float], arms: Sequence[str], length: int, num_documents: int) -> pa.Table:
    """Ranges [1, 2) [2, 4) [4, 8) ... of the windows of `length` tokens; nats(arm, start) a token."""
    starts = [2**k for k in range(length.bit_length()) if 2**k < length]
    rows = [
        {"arm": arm, "length": length, "doc_id": f"d{d:02}", "start": start, "end": min(2 * start, length)}
        | {"nll": (min(2 * start, length) - start) * (nats(arm, start) + d / 50)}
        for arm in arms
        for d in range(num_documents)
        for start in starts
    ]
    return pa.Table.from_pylist(rows, schema=POSITION_SAMPLES)


def protocol_table(protocol: str, windows: Sequence[tuple[int, float]], arm: str = "base") -> pa.Table:
    """Windows of one document, each (tokens, nll)."""
    rows = [
        {"arm": arm, "protocol": protocol, "length": 1024, "doc_id": "d0", "window": i, "num_tokens": tokens, "nll": nll}
        for i, (tokens, nll) in enumerate(windows)
    ]
    return pa.Table.from_pylist(rows, schema=PROTOCOL_SAMPLES)


def reorder_table(rates: Mapping[str, float], lengths: Sequence[int], num_samples: int) -> pa.Table:
    """Each strategy answers the questions whose difficulty, spread evenly over [0, 1), is below its rate."""
    rows = [
        _reorder_row(strategy, length, sample, float(sample / num_samples < rate))
        for length in lengths
        for sample in range(num_samples)
        for strategy, rate in rates.items()
    ]
    return pa.Table.from_pylist(rows, schema=REORDER_SAMPLES)


def _reorder_row(strategy: str, length: int, sample: int, score: float) -> dict[str, Any]:
    return {
        "arm": "fine_tuned",
        "length": length,
        "sample": sample,
        "seed": sample,
        "strategy": strategy,
        "order": [1, 2, 3],
        "gold_rank": 1,
        "position": 0.5,
        "prompt_hash": f"{strategy} {length} {sample}",
        "prompt_tokens": length - 4,
        "golds": ["12345"],
        "output": "12345" if score else "1",
        "mode": "forced",
        "score": score,
        "logprob": -5.0 + score,
    }


def coin(seed: int, *what: object) -> float:
    """A number in [0, 1) that depends on the arguments alone."""
    return float(np.random.default_rng([seed, int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6])]).random())
