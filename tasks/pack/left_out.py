"""What packing leaves out: a sentence with the figures where it is much, or where a mix misses its shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data_schemas.params import PackingParams
from tasks.pack.recipes import ShareReport

_MISSED_SHARE = 0.05  # absolute: a mix of whole sequences that misses a share by more is reported


def dropped_warning(lengths: np.ndarray, uses_budgeted: np.ndarray, uses: np.ndarray, params: PackingParams) -> Iterator[str]:
    """A sentence if more than `warn_dropped_share` of the tokens are never used; the arrays are int [num_sequences]."""
    total, is_dropped = int(lengths.sum()), uses == 0
    dropped = int(lengths[is_dropped].sum())
    if not total or dropped <= params.warn_dropped_share * total:
        return
    by_budgets = int(lengths[uses_budgeted == 0].sum())
    reasons = [("the budgets", by_budgets), ("the mix", dropped - by_budgets)]
    told = " and ".join(f"{number:,} by {reason}" for reason, number in reasons if number)
    yield (
        f"packing leaves out {dropped / total:.1%} of the training tokens ({dropped:,} of {total:,}: {told}): change packing.budgets, "
        "packing.long_share, packing.long_from or the sources' weights, or set packing.warn_dropped_share higher."
    )


def mix_warnings(shares: Sequence[ShareReport]) -> Iterator[str]:
    """A sentence for each share that the mix misses clearly, because its pieces are few and large."""
    for share in shares:
        if share.wanted is not None and abs(share.reached - share.wanted) > _MISSED_SHARE:
            yield (
                f"the mix has {share.reached:.1%} of its tokens from {share.name} instead of {share.wanted:.1%}, because its pieces are "
                "few and large: add documents, or change the shares."
            )
