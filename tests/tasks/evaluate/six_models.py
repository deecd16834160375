"""A made-up evaluation of six models, as many as a page has to keep apart."""

import math
from functools import cache

from data_schemas.report import Report
from tasks.evaluate.report.build import build_report
from tasks.evaluate.sample_set import Samples
from tests.tasks.evaluation_rows import changed_settings, coin, perplexity_table, position_table, reorder_table, task_table

SIX = ("base", "scaling_only", "fine_tuned", "base_linear", "base_ntk", "base_dynamic")
LENGTHS = (4096, 8192, 32768, 131072)
WINDOW, TARGET = 8192, 131072
TASKS = ("passkey", "key_value")
_WORSE = dict(zip(SIX, (0, 0.03, -0.02, 0.06, 0.045, 0.035), strict=True))
_RATES = dict(zip(SIX, (0.5, 0.6, 0.95, 0.3, 0.5, 0.5), strict=True))


def _nats(arm: str, length: int, document: int) -> float:
    fails = 0.9 * math.log2(length / WINDOW) if arm == "base" and length > WINDOW else 0
    return 1.95 + 0.25 * math.sin(3 * document) + _WORSE[arm] + fails + 0.01 * coin(1, arm, length, document)


def _score(arm: str, task: str, length: int, depth: float | None, sample: int) -> float:
    return float(coin(2, arm, task, length, depth, sample) < (0 if arm == "base" and length > WINDOW else _RATES[arm]))


SETTINGS = changed_settings(
    base_window=WINDOW,
    target_length=TARGET,
    target_tokens=256,
    lengths=LENGTHS,
    arms=SIX,
    tasks=TASKS,
    longppl_evaluator=None,
    measured_with={
        "base": "acme/Base-7B",
        "method": "yarn",
        "corpus": ["books", "law"],
        "date": "2026-11-30",
        "numbers": "float32",
        "device": "CPU",
        "versions": {"ropeway": "0.1.0", "torch": "2.13.0"},
    },
)


def six_samples() -> Samples:
    return Samples.of(
        perplexity=perplexity_table(_nats, SIX, LENGTHS, 12),
        position=position_table(lambda arm, start: 2 + 1 / start + _WORSE[arm], SIX, TARGET, 3),
        task=task_table(_score, arms=SIX, tasks=TASKS, lengths=LENGTHS, depths=(0.0, 0.5, 1.0), num_samples=20),
        reorder=reorder_table({"none": 0.3, "random": 0.35, "reverse_rank": 0.9}, (8192, TARGET), num_samples=20),
    )


@cache
def six_report() -> Report:
    return build_report(six_samples(), SETTINGS)
