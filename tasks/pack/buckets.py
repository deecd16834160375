"""Length buckets: the unit in which chunks are sampled, budgeted and reported."""

from dataclasses import asdict, dataclass

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PackingParams
from tasks.pack.reading import sample_order


@dataclass(frozen=True)
class BucketReport:
    """One length bucket: sequences of more tokens than the bucket below has, and at most `upper_bound`.

    `num_chunks` and `num_tokens` count what there is; `num_used` and `num_used_tokens` what is packed, repeats included.
    """

    upper_bound: int
    num_chunks: int
    num_tokens: int
    num_used: int
    num_used_tokens: int
    repeats: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def bucket_bounds(min_bucket: int, target_length: int) -> list[int]:
    """Upper bounds in tokens: `min_bucket`, doubled while below the target, then the target itself."""
    bounds = []
    bound = min_bucket
    while bound < target_length:
        bounds.append(bound)
        bound *= 2
    return [*bounds, target_length]


def sample_chunks(lengths: np.ndarray, target_length: int, params: PackingParams) -> tuple[np.ndarray, list[BucketReport]]:
    """(int64 indices of the sequences to pack, in the order to pack them; a report a bucket).

    Within a bucket the sequences are shuffled, each of `bucket_repeats` passes anew, and taken until the next one would
    exceed the bucket's token budget. A pure function of its arguments. Raises UserError for a bucket that does not exist.
    """
    bounds = bucket_bounds(params.min_bucket, target_length)
    _check_keys(params, bounds)
    bucket_of = np.searchsorted(bounds, lengths, side="left")
    chosen, reports = [], []
    for number, bound in enumerate(bounds):
        members = np.flatnonzero(bucket_of == number)
        repeats = params.bucket_repeats.get(bound, 1)
        passes = [members[sample_order(len(members), params.seed, number * 1_000_003 + p)] for p in range(repeats)]
        used = np.concatenate([np.empty(0, np.int64), *passes])
        if (budget := params.bucket_token_budgets.get(bound)) is not None:
            used = used[np.cumsum(lengths[used]) <= budget]
        chosen.append(used)
        reports.append(
            BucketReport(bound, len(members), int(lengths[members].sum()), len(used), int(lengths[used].sum()), repeats)
        )
    together = np.concatenate(chosen)
    return together[sample_order(len(together), params.seed, len(bounds) * 1_000_003)], reports


def _check_keys(params: PackingParams, bounds: list[int]) -> None:
    for name, setting in (("bucket_token_budgets", params.bucket_token_budgets), ("bucket_repeats", params.bucket_repeats)):
        for bound, value in setting.items():
            if bound not in bounds:
                raise UserError(f"packing.{name} names a bucket {bound} that does not exist: the buckets are {bounds}.")
            if value < 0:
                raise UserError(f"packing.{name}[{bound}] is {value}: give 0 or more.")
