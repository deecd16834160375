"""Every sample of one arm: the model on the fixed targets and on the passkey grid, length by length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_schemas.errors import UserError
from ray_jobs.evaluate.scoring import TargetScores, score_batches
from tasks.evaluate.passkey import PasskeySample
from tasks.evaluate.perplexity import TargetDocument
from tasks.evaluate.samples import PASSKEY_SAMPLES, PERPLEXITY_SAMPLES

_SECONDS_BETWEEN_REPORTS = 2.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Workload:
    """What every arm is measured on: the same documents, lengths and prompts."""

    documents: tuple[TargetDocument, ...]
    lengths: tuple[int, ...]
    passkeys: dict[int, tuple[PasskeySample, ...]]  # by length

    @property
    def all_lengths(self) -> tuple[int, ...]:
        return tuple(sorted({*self.lengths, *self.passkeys}))


def measure_arm(
    model: Any, arm: str, workload: Workload, tokenizer: Any, *, batch_tokens: int, progress: Progress
) -> tuple[pa.Table, pa.Table]:
    """PERPLEXITY_SAMPLES and PASSKEY_SAMPLES rows of one arm.

    Lengths ascend over both measures. Dynamic RoPE keeps the frequencies of the longest sequence it has seen while
    sequences are not shorter than the base's window, so in another order a length would depend on the one before it.

    Raises:
        UserError: the model's log-probabilities are not finite.
    """
    perplexity_rows: list[dict[str, Any]] = []
    passkey_rows: list[dict[str, Any]] = []
    for length in workload.all_lengths:
        if length in workload.lengths:
            perplexity_rows += _score_documents(model, arm, workload.documents, length, batch_tokens, progress)
        if samples := workload.passkeys.get(length):
            passkey_rows += _score_passkeys(model, arm, samples, length, tokenizer, batch_tokens, progress)
    return (
        pa.Table.from_pylist(perplexity_rows, schema=PERPLEXITY_SAMPLES),
        pa.Table.from_pylist(passkey_rows, schema=PASSKEY_SAMPLES),
    )


def _score_documents(
    model: Any, arm: str, documents: Sequence[TargetDocument], length: int, batch_tokens: int, progress: Progress
) -> list[dict[str, Any]]:
    windows = [document.window(length) for document in documents]
    batches = score_batches(model, windows, [d.num_targets for d in documents], batch_tokens=batch_tokens)
    told = _told(batches, len(windows), f"evaluate {arm}: perplexity at {length}", "documents", progress)
    return [
        {
            "arm": arm,
            "length": length,
            "doc_id": document.doc_id,
            "target_start": document.target_start,
            "num_tokens": document.num_targets,
            "nll": -_finite_sum(score, arm, length),
        }
        for document, score in zip(documents, told, strict=True)
    ]


def _score_passkeys(
    model: Any,
    arm: str,
    samples: Sequence[PasskeySample],
    length: int,
    tokenizer: Any,
    batch_tokens: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    windows = [window for sample in samples for window in (sample.control, *sample.prompts)]
    num_targets = [sample.num_answer_tokens for sample in samples for _ in range(1 + len(sample.prompts))]
    batches = score_batches(model, windows, num_targets, batch_tokens=batch_tokens)
    told = _told(batches, len(windows), f"evaluate {arm}: passkey at {length}", "prompts", progress)
    rows = []
    for sample in samples:
        control = _finite_sum(next(told), arm, length)
        for depth, prompt in zip(sample.depths, sample.prompts, strict=True):
            score = next(told)
            logprob = _finite_sum(score, arm, length)
            rows.append(
                {
                    "arm": arm,
                    "length": length,
                    "depth": depth,
                    "sample": sample.sample,
                    "seed": sample.seed,
                    "gold": sample.gold,
                    "output": tokenizer.decode(score.greedy_ids),
                    "correct": bool(np.array_equal(score.greedy_ids, prompt[-sample.num_answer_tokens :])),
                    "logprob": logprob,
                    "control_logprob": control,
                    "gain": logprob - control,
                }
            )
    return rows


def _finite_sum(score: TargetScores, arm: str, length: int) -> float:
    total = float(score.logprobs.sum())
    if not math.isfinite(total):
        raise UserError(
            f"The {arm} model gives log-probabilities that are not finite at {length} tokens: check its weights, and its "
            "training log if it was fine-tuned."
        )
    return total


def _told(
    batches: Iterable[list[TargetScores]], total: int, what: str, things: str, progress: Progress
) -> Iterator[TargetScores]:
    """The scores of all `batches`, saying every few seconds how many are done and how long the rest takes."""
    started = last = time.monotonic()
    done = 0
    progress(f"{what}: 0/{total} {things}")
    for batch in batches:
        now = time.monotonic()
        done += len(batch)
        if done == total:
            progress(f"{what}: {total}/{total} {things}, {now - started:.1f} s")
        elif now - last >= _SECONDS_BETWEEN_REPORTS:
            last = now
            progress(f"{what}: {done}/{total} {things}, about {(now - started) / done * (total - done):.0f} s left")
        yield from batch
