"""The list for short prompts, after training with longrope's two lists.

Training moves the weights: most rows turn by the long list, the short rows by the short one. So afterwards another list may suit short
prompts better than the one that their rows were trained with. Tried are lists between the two, pair by pair:

    factor_i(share) = short_i^(1 - share) * long_i^share        share 0, 0.1, ... 1

Both lists share one factor on cosine and sine, which stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_schemas.short_factors import ShortFactors
from tasks.evaluate.heldout import HeldOutDocument
from tasks.evaluate.statistics.estimates import mean_with_t_interval
from tasks.model.rope_plan import RopePlan
from tasks.rope_search.decision import mean_by_cluster
from tasks.rope_search.samples import SearchSample
from tasks.rope_search.space import Candidate

SHARES = tuple(number / 10 for number in range(11))
TRAINED = SHARES[0]


def most_passes(num_choosing: int, num_deciding: int) -> int:
    """Forward passes over that many texts that choose a list and that decide."""
    return len(SHARES) * num_choosing + 2 * num_deciding


def list_between(plan: RopePlan, share: float) -> Candidate:
    """The list at `share` of the way from the plan's short list to its long one. At 0 it is the short list to the last bit."""
    short, long = (np.asarray(plan.rope_parameters[name], np.float64) for name in ("short_factor", "long_factor"))
    _, attention = plan.frequencies(plan.short_length)
    return Candidate(tuple((short ** (1 - share) * long**share).tolist()), attention)


def short_sample(document: HeldOutDocument, length: int, cluster: str) -> SearchSample:
    """The first `length` tokens of a document, of which the second half is scored."""
    return SearchSample(
        doc_id=document.doc_id,
        tokens=np.asarray(document.token_ids[:length], np.int32),
        answers=np.empty(0, np.int64),
        text=np.arange(length // 2, length),
        depths=(),
        cluster=cluster,
    )


def best_share(losses: Mapping[float, Sequence[float]]) -> float:
    """The share with the lowest mean loss; of equal ones the one nearest to the trained list."""
    return min(losses, key=lambda share: (float(np.mean(losses[share])), share))


def decided(
    plan: RopePlan,
    losses: Mapping[float, Sequence[float]],
    found: Sequence[float],
    trained: Sequence[float],
    clusters: Sequence[str],
    confidence: float,
    of_works: bool = True,
) -> ShortFactors:
    """The list to publish: the best one if it beats the trained list on other texts, beyond Student's t interval over works.

    Args:
        losses: by share, of each choosing text, nats a token.
        found, trained: of each deciding text, under the best list and under the trained one.
        clusters: the work of each deciding text; or its document, where all are of fewer than four works (not `of_works`).
    """
    share = best_share(losses)
    differences = mean_by_cluster(np.asarray(found) - np.asarray(trained), clusters)
    estimate = mean_with_t_interval(differences, confidence)
    low, high = (estimate.value if bound is None else bound for bound in (estimate.low, estimate.high))
    is_used = estimate.high is not None and high < 0
    units = "works" if of_works else "documents, which are of fewer than four works"
    measured = f"{estimate.value:+.4f} nats a token [{low:+.4f}, {high:+.4f}] on {len(differences)} {units}"
    if share == TRAINED:
        verdict = "the trained list is the best one for short prompts, and stays"
    elif is_used:
        verdict = f"{share:.0%} of the way to the long list is better for short prompts than the trained list: {measured}"
    else:
        verdict = f"{share:.0%} of the way to the long list is not shown to be better for short prompts, so none is changed: {measured}"
    return ShortFactors(
        share=share,
        short_factor=list_between(plan, share if is_used else TRAINED).factors,
        loss_by_share={f"{one:g}": float(np.mean(values)) for one, values in losses.items()},
        num_samples=len(losses[TRAINED]),
        num_deciding=len(found),
        difference=estimate.value,
        low=low,
        high=high,
        is_used=is_used,
        verdict=verdict,
    )
