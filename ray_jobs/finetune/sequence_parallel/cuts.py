"""Where a packed row is cut into one part for each worker: about equal cost, at the places where least is sent.

A cut between two documents sends nothing. Inside a document the part after the cut needs the keys and values of its first segment
that lie before the cut: none of the unshifted heads and g/2 tokens of the shifted heads at a multiple of g from the document's
start, up to g - 1 of both elsewhere. A document that attends in full is needed from its start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_schemas.errors import UserError

SLACK = 0.02  # of a part's cost: how far a cut may lie from equal cost to send less


@dataclass(frozen=True)
class RowCost:
    """What a token costs, and what sending costs, for one model.

    linear        cost of a token in all layers without attention, in units of one query times one key in all heads and layers
    in_groups     share of the layers that attend in groups
    in_full       share of the layers that attend in full where their tokens are; layers whose heads are exchanged instead
                  (`all_to_all`) cost and send the same wherever the cut is, so they are in neither share
    unshifted     share of the key-value heads that are unshifted
    """

    linear: float
    in_groups: float = 1.0
    in_full: float = 0.0
    unshifted: float = 0.5


def plan_cuts(
    lengths: np.ndarray, num_parts: int, group_size: int, cost: RowCost, in_full: np.ndarray | None = None
) -> tuple[int, ...]:
    """The first token of each part, and the row's length: [num_parts + 1], growing.

    `lengths` int [num_documents] are those of the row's documents, `in_full` bool [num_documents] marks those that attend in full.
    A pure function, so all workers find the same cuts. UserError for a row with fewer tokens than parts.
    """
    lengths = np.asarray(lengths, np.int64)
    num_tokens = int(lengths.sum())
    if num_tokens < num_parts:
        raise UserError(
            f"A row of {num_tokens} tokens cannot be cut over {num_parts} workers: lower ray.sequence_workers, or pack longer rows."
        )
    if num_parts == 1:
        return 0, num_tokens
    offsets = _offsets(lengths)
    marks = np.zeros(len(lengths), bool) if in_full is None else np.asarray(in_full, bool)
    whole = np.repeat(marks, lengths)
    sent = _reach(offsets, group_size, cost, whole)
    total = np.concatenate([[0.0], np.cumsum(cost.linear + 1 + sent)])
    part = total[-1] / num_parts
    cuts = [0]
    for number in range(1, num_parts):
        wanted = number * part
        first = max(int(np.searchsorted(total, wanted - SLACK * part)), cuts[-1] + 1)
        last = min(int(np.searchsorted(total, wanted + SLACK * part, side="right")) - 1, num_tokens - num_parts + number)
        last = max(last, first)
        places = np.arange(first, last + 1)
        if last == first:  # one token may cost more than the slack
            nearest = int(np.argmin(np.abs(total[cuts[-1] + 1 : num_tokens - num_parts + number + 1] - wanted)))
            cuts.append(cuts[-1] + 1 + nearest)
            continue
        order = np.lexsort((np.abs(total[places] - wanted), sent[places]))
        cuts.append(int(places[order[0]]))
    return (*cuts, num_tokens)


def sent_tokens(lengths: np.ndarray, cut: int, group_size: int, in_full: np.ndarray | None = None) -> tuple[int, int]:
    """Tokens before `cut` whose keys and values are needed behind it: by unshifted heads, and by shifted ones."""
    lengths = np.asarray(lengths, np.int64)
    whole = np.repeat(np.zeros(len(lengths), bool) if in_full is None else np.asarray(in_full, bool), lengths)
    unshifted, shifted = _halos(_offsets(lengths), group_size, whole)
    return int(unshifted[cut]), int(shifted[cut])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """int64 [T]: each token's place in its document."""
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.arange(int(lengths.sum())) - starts


def _halos(offsets: np.ndarray, group_size: int, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [T] each: how far a token's unshifted and its shifted segment reach back from it."""
    half = group_size // 2
    shifted = np.where(offsets < half, offsets, (offsets - half) % group_size)
    return np.where(whole, offsets, offsets % group_size), np.where(whole, offsets, shifted)


def _reach(offsets: np.ndarray, group_size: int, cost: RowCost, whole: np.ndarray) -> np.ndarray:
    """float64 [T]: tokens before each token that it looks at, as a mean over layers and heads; a cut before it sends as many."""
    unshifted, shifted = _halos(offsets, group_size, whole)
    grouped = cost.unshifted * unshifted + (1 - cost.unshifted) * shifted
    return cost.in_full * offsets + cost.in_groups * grouped
