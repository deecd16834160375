"""Mixes: how many tokens each source, and long and short documents, contribute.

Source weights: the largest mix whose shares are proportional to the weights and in which no source is used more than
`max_repeats` times.

`long_context_mix`: `long_share` of the tokens from long documents, the rest from short ones. Gao et al. 2024, "How to Train
Long-Context Language Models (Effectively)" (ProLong, arXiv:2410.02660) continue training on 60 % long data (books and code
repositories) and 40 % short data of good quality. They report that the short part preserves short-context ability, and that
even more long data does not help at long context either once the model has been instruction-tuned. Here a document is long
from `long_from` tokens on, with all its pieces. The side with too many tokens is sampled down; the other is not repeated.

Both together: the sources keep their weights and the whole keeps its long share. A source of books may supply more of the
long part, and a source of web pages more of the short part.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PackingParams
from tasks.pack.budgets import SourceShare
from tasks.pack.reading import shuffled

_STREAM = 2**31 + 2
_SLACK = 1e-9  # relative; rounding of sums of floats


@dataclass(frozen=True)
class ShareReport:
    """A share of the packed tokens: `wanted` (None without a weight or recipe), and `reached` with whole sequences.

    Of a source, by its name; or, for long_context_mix, of the documents called "long" or "short".
    """

    name: str
    wanted: float | None
    reached: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Mix:
    """A mix of groups of sequences (source x length of the document). Without weights all sources are one group.

    `weights`, one for each source, sum to 1. `long_share` is 1.0 without a recipe; then all sequences count as long.
    """

    weights: list[float]
    max_repeats: list[int]
    long_share: float

    def tokens(self, available: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """(long, short) tokens to take of each source, given the available ones; all zero if no mix is possible."""
        most = [(a * n, b * n) for (a, b), n in zip(available, self.max_repeats, strict=True)]
        low, high = 0, sum(a + b for a, b in most)
        while low < high:  # whatever total is possible, every smaller one is
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._possible(middle, most) else (low, middle - 1)
        least, largest = self._long_range(low, most)
        spread = sum(largest) - sum(least)
        part = (self.long_share * low - sum(least)) / spread if spread > 0 else 0.0
        part = min(1.0, max(0.0, part))
        long = [a + part * (b - a) for a, b in zip(least, largest, strict=True)]
        return [
            (min(round(n), most_long), min(round(w * low - n), most_short))
            for n, w, (most_long, most_short) in zip(long, self.weights, most, strict=True)
        ]

    def _long_range(self, total: int, most: list[tuple[int, int]]) -> tuple[list[float], list[float]]:
        """Fewest and most long tokens of each source in a mix of `total` tokens."""
        least = [max(0.0, w * total - short) for w, (_, short) in zip(self.weights, most, strict=True)]
        return least, [min(w * total, float(long)) for w, (long, _) in zip(self.weights, most, strict=True)]

    def _possible(self, total: int, most: list[tuple[int, int]]) -> bool:
        slack = _SLACK * total
        if any(w * total > long + short + slack for w, (long, short) in zip(self.weights, most, strict=True)):
            return False
        least, largest = self._long_range(total, most)
        return sum(least) - slack <= self.long_share * total <= sum(largest) + slack


def apply_mix(
    chosen: np.ndarray,
    lengths: np.ndarray,
    document_lengths: np.ndarray,
    sources: np.ndarray | None,
    shares: tuple[SourceShare, ...],
    target_length: int,
    params: PackingParams,
) -> np.ndarray:
    """int64 indices of the sequences to pack, given those that the budgets leave.

    Each group is used in whole passes and, for the rest, a seeded sample that is as near to the wanted number of tokens as
    whole sequences can be. Without weights and recipe `chosen` is returned unchanged. UserError if no such mix exists, or if
    it would have no sequence of a source, of long or of short documents.
    """
    weighted = [share for share in shares if share.weight is not None]
    recipe = params.recipe == "long_context_mix"
    if not (weighted or recipe) or not len(chosen):
        return chosen
    names = [share.name for share in shares] if weighted else ["*"]
    mix = Mix(
        _weight_shares(shares) if weighted else [1.0],
        [share.max_repeats for share in shares] if weighted else [1],
        params.long_share if recipe else 1.0,
    )
    source_of = np.zeros(len(chosen), np.int64) if sources is None or not weighted else np.asarray(sources, np.int64)[chosen]
    long_from = long_from_of(params, target_length)
    group_of = 2 * source_of + (document_lengths[chosen] < long_from if recipe else 0)
    there = [int(n) for n in np.bincount(group_of, lengths[chosen], minlength=2 * len(names))]
    available = [(there[2 * i], there[2 * i + 1]) for i in range(len(names))]
    _check(names, mix, available, long_from)
    wanted = [tokens for pair in mix.tokens(available) for tokens in pair]
    taken = [
        _take(chosen[group_of == group], lengths, tokens, (params.seed, _STREAM, group)) for group, tokens in enumerate(wanted)
    ]
    for i, name in enumerate(names):
        if sum(available[i]) and not len(taken[2 * i]) + len(taken[2 * i + 1]):
            raise UserError(
                f"The source {name!r} has no sequence short enough for its part of the mix, {sum(wanted[2 * i : 2 * i + 2])} "
                "tokens: add documents to the smaller sources, raise their max_repeats, or change the weights."
            )
    if recipe:
        _refuse_one_sided(taken, lengths, available, wanted, params, long_from)
    return np.concatenate(taken)


def share_reports(
    chosen: np.ndarray,
    lengths: np.ndarray,
    document_lengths: np.ndarray,
    sources: np.ndarray | None,
    shares: tuple[SourceShare, ...],
    target_length: int,
    params: PackingParams,
) -> tuple[tuple[ShareReport, ...], tuple[ShareReport, ...]]:
    """Shares of the packed sequences `chosen` by source, and for long_context_mix by the documents' length (else empty)."""
    total = max(1, int(lengths[chosen].sum()))
    of_source = np.zeros(len(chosen), np.int64) if sources is None else np.asarray(sources, np.int64)[chosen]
    tokens = np.bincount(of_source, lengths[chosen], minlength=len(shares)).tolist()
    weights = _weight_shares(shares) if any(share.weight is not None for share in shares) else [None] * len(shares)
    by_source = tuple(ShareReport(s.name, w, n / total) for s, w, n in zip(shares, weights, tokens, strict=True))
    if params.recipe != "long_context_mix":
        return by_source, ()
    is_long = document_lengths[chosen] >= long_from_of(params, target_length)
    long = int(lengths[chosen][is_long].sum()) / total
    long_share = params.long_share
    return by_source, (ShareReport("long", long_share, long), ShareReport("short", 1 - long_share, 1 - long))


def _weight_shares(shares: tuple[SourceShare, ...]) -> list[float]:
    total = sum(share.weight or 0.0 for share in shares)
    return [(share.weight or 0.0) / total for share in shares]


def long_from_of(params: PackingParams, target_length: int) -> int:
    """Length in tokens from which a document counts as long; it may be over the target."""
    return params.long_from or max(2, target_length // 2)


def _check(names: list[str], mix: Mix, available: list[tuple[int, int]], long_from: int) -> None:
    for name, weight, tokens in zip(names, mix.weights, available, strict=True):
        if weight and not sum(tokens):
            raise UserError(
                f"The source {name!r} has a weight but nothing to pack: remove it, or check why it has no documents."
            )
    if mix.long_share == 1.0:
        return
    long, short = (sum(side) for side in zip(*available, strict=True))
    for there, other, kind in ((long, short, "at least"), (short, long, "fewer than")):
        if not there:
            raise UserError(
                f"packing.recipe long_context_mix finds no document of {kind} {long_from:,} tokens, as all {other:,} tokens are in "
                f"{'shorter' if kind == 'at least' else 'longer'} ones: change packing.long_from, or add such documents."
            )
    if not any(sum(pair) for pair in mix.tokens(available)):
        raise UserError(
            "No mix has both the sources' weights and packing.long_share of its tokens from documents of at least "
            f"{long_from} tokens: change the weights, packing.long_share or packing.long_from."
        )


def _refuse_one_sided(
    taken: list[np.ndarray],
    lengths: np.ndarray,
    available: list[tuple[int, int]],
    wanted: list[int],
    params: PackingParams,
    long_from: int,
) -> None:
    """UserError where the pieces of one side are too long for its part, so that rounding to whole pieces leaves none."""
    for side, name in enumerate(("long", "short")):
        if any(len(members) for members in taken[side::2]):
            continue
        there, other = (sum(pair[n] for pair in available) for n in (side, 1 - side))
        other_name = ("short", "long")[side]
        raise UserError(
            f"packing.recipe long_context_mix would leave no {name} document: from {there:,} tokens of {name} and {other:,} of "
            f"{other_name} documents (long from {long_from:,}) a mix with packing.long_share {params.long_share} takes "
            f"{sum(wanted[side::2]):,} {name} ones, and no piece is that short; add {other_name} documents, or change packing.long_share "
            "or packing.long_from."
        )


def _take(members: np.ndarray, lengths: np.ndarray, num_tokens: int, key: tuple[int, ...]) -> np.ndarray:
    """`members` repeated up to about `num_tokens` tokens; the last pass is a random part of them."""
    total = int(lengths[members].sum())
    if not total:
        return members[:0]
    passes, rest = divmod(num_tokens, total)
    order = members[shuffled(len(members), *key)]
    sums = np.concatenate([[0], np.cumsum(lengths[order])])
    nearest = int(np.searchsorted(sums, rest))  # at least `rest`; one fewer may be nearer
    if nearest and rest - sums[nearest - 1] <= sums[nearest] - rest:
        nearest -= 1
    return np.concatenate([*[members] * passes, order[:nearest]])
