"""Token budgets and repeats by (source, length bucket): which sequences are used, and how often.

One rule decides each sequence: the last of `packing.budgets` that matches its source and bucket; if none does, the bucket's
entry in `bucket_token_budgets` and `bucket_repeats`; otherwise it is used once. All sequences of a rule share its budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PackingParams
from tasks.pack.buckets import Cells
from tasks.pack.reading import shuffled

_STREAM = 2**31 + 1  # keeps these shuffles apart from all others with the same seed


@dataclass(frozen=True)
class SourceShare:
    """A source's name, its weight relative to the others (None: use all of every source), and how often it may be used."""

    name: str
    weight: float | None = None
    max_repeats: int = 1


@dataclass(frozen=True)
class Rule:
    """Use each sequence `repeats` times, up to `max_tokens` tokens in all (None: no limit)."""

    max_tokens: int | None = None
    repeats: int = 1


def apply_budgets(lengths: np.ndarray, cells: Cells, params: PackingParams) -> np.ndarray:
    """int64 indices of the sequences to use, with repeats.

    A rule shuffles its sequences anew for each pass and takes them until the next would exceed its budget, so each is used
    once before any is used again. A pure function of its arguments. UserError for rules that match no bucket or source, or
    that leave nothing.
    """
    rules, rule_of_cell = _rules(cells, params)
    if len(rules) == 1:
        return np.arange(len(lengths))
    rule_of = rule_of_cell[cells.of]
    chosen = [
        _take(np.flatnonzero(rule_of == number), lengths, rule, (params.seed, _STREAM, number))
        for number, rule in enumerate(rules)
    ]
    together = np.concatenate(chosen)
    if len(lengths) and not len(together):
        raise UserError(
            "No training row is left: packing.budgets, bucket_token_budgets and bucket_repeats leave out every sequence, raise them."
        )
    return together


def _take(members: np.ndarray, lengths: np.ndarray, rule: Rule, key: tuple[int, ...]) -> np.ndarray:
    if rule == Rule() or not len(members):
        return members
    passes = rule.repeats
    if rule.max_tokens is not None:
        passes = min(passes, rule.max_tokens // int(lengths[members].sum()) + 1)
    shuffles = [members[shuffled(len(members), *key, number)] for number in range(passes)]
    used = np.concatenate([np.empty(0, np.int64), *shuffles])
    return used if rule.max_tokens is None else used[np.cumsum(lengths[used]) <= rule.max_tokens]


def _rules(cells: Cells, params: PackingParams) -> tuple[list[Rule], np.ndarray]:
    """The rules, starting with the default, and for each cell the number of the rule that decides it."""
    _check(cells, params)
    rules = [Rule()]
    table = np.zeros((len(cells.source_names), len(cells.bounds)), np.int64)
    for column, bound in enumerate(cells.bounds):
        if bound in params.bucket_token_budgets or bound in params.bucket_repeats:
            table[:, column] = len(rules)
            rules.append(Rule(params.bucket_token_budgets.get(bound), params.bucket_repeats.get(bound, 1)))
    for budget in params.budgets:
        rows = slice(None) if budget.source == "*" else cells.source_names.index(budget.source)
        columns = slice(None) if budget.bucket is None else cells.bounds.index(budget.bucket)
        table[rows, columns] = len(rules)
        rules.append(Rule(budget.max_tokens, budget.repeats))
    return rules, table.ravel()


def _check(cells: Cells, params: PackingParams) -> None:
    buckets = f"the buckets are {', '.join(map(str, cells.bounds))}"
    for name, setting in (("bucket_token_budgets", params.bucket_token_budgets), ("bucket_repeats", params.bucket_repeats)):
        for bound, value in setting.items():
            if bound not in cells.bounds:
                raise UserError(f"packing.{name} names a bucket {bound} that does not exist: {buckets}.")
            if value < 0:
                raise UserError(f"packing.{name}[{bound}] is {value}: give 0 or more.")
    for i, budget in enumerate(params.budgets):
        if budget.bucket is not None and budget.bucket not in cells.bounds:
            raise UserError(f"packing.budgets[{i}] names a bucket {budget.bucket} that does not exist: {buckets}.")
        if budget.source not in ("*", *cells.source_names):
            names = ", ".join(cells.source_names)
            raise UserError(
                f"packing.budgets[{i}] names a source {budget.source!r} that does not exist: the sources are {names}."
            )
