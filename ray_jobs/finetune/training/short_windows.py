"""Mixed windows: rows of short documents beside long rows, so that short prompts are kept (LongRoPE2, arXiv 2502.20082).

Of each step's ordinary rows a share is cut: a document longer than W tokens becomes pieces of W tokens and a rest, and each piece is a
document of its own, with positions from 0 and BOS in front where the base has one. W is the base's window; with longrope's two lists it is
the original length, at which programs switch between them. (They differ on a base that is already extended.)

    row of 2048 tokens, documents of 1200 and 848, W = 512      pieces of 512 512 176 | 512 336

Rows that state loss weights, of retrieval documents and conversations, are never cut: their answers need what stands far away.
Pieces attend in full. They rotate as the released model does in prompts of up to W tokens (`short_rotation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_schemas.params import PipelineParams
from ray_jobs.finetune.training.batches import Rows
from tasks.model.extended import rope_plan_for

_STREAM = 2**31 + 17  # random stream


class MixedRows:
    """A step's rows: as `rows` has them, but for those of `cut`, by index."""

    def __init__(self, rows: Rows, cut: Mapping[int, dict[str, np.ndarray]]) -> None:
        self._rows, self._cut = rows, cut

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> dict[str, np.ndarray]:
        return self._cut[index] if index in self._cut else self._rows.row(index)

    def chunk_ids(self, index: int) -> list[str]:
        return self._rows.chunk_ids(index)

    def is_short(self, index: int) -> bool:
        """Whether the row was cut."""
        return index in self._cut


@dataclass(frozen=True)
class ShortWindows:
    """Which rows are cut, and how. A pure function of seed, step and the step's rows, so that a run resumes exactly.

    `window` in tokens; `bos`: the token that begins each document, if the base has one; `rotates`: pieces have their own rotation.
    """

    share: float
    window: int
    bos: int | None
    rotates: bool
    seed: int

    def of_step(self, rows: Rows, indices: list[int], step: int) -> MixedRows:
        """The rows as this step trains them."""
        ordinary = sorted({index for index in indices if "loss_weights" not in rows.row(index)})
        draws = np.random.PCG64(np.random.SeedSequence((self.seed, step, _STREAM))).random_raw(len(ordinary) + 1)
        count = int(self.share * len(ordinary) + float(draws[0]) / 2**64)  # rounded up as often as its fraction says
        chosen = np.argsort(draws[1:], kind="stable")[:count]
        cut = {
            ordinary[place]: cut_row(rows.row(ordinary[place]), self.window, self.bos, self.rotates)
            for place in chosen.tolist()
        }
        return MixedRows(rows, cut)


def cut_row(row: Mapping[str, np.ndarray], window: int, bos: int | None, rotates: bool) -> dict[str, np.ndarray]:
    """The row with documents of at most `window` tokens, all of which attend in full; `short_window` bool [num_pieces] if it rotates.

    The row keeps its length: where `bos` is given, it takes the place of the first token of each further piece, which is no target anyway.
    """
    pieces: list[int] = []
    begun: list[int] = []  # first tokens of further pieces
    start = 0
    for length in row["seq_lengths"].tolist():
        starts = range(start, start + length, window)
        pieces += [min(window, start + length - first) for first in starts]
        begun += list(starts)[1:]
        start += length
    ids = row["input_ids"]
    if bos is not None and begun:
        ids = ids.copy()
        ids[begun] = bos
    marks = np.ones(len(pieces), bool)
    found = {"input_ids": ids, "seq_lengths": np.array(pieces, np.int32), "full_attention": marks}
    return found | ({"short_window": marks} if rotates else {})


def short_windows_of(params: PipelineParams, rows: Any) -> ShortWindows | None:
    """What `training.short_window_share` asks for; None for none."""
    if not params.training.short_window_share:
        return None
    plan = rope_plan_for(params.model)
    return ShortWindows(
        share=params.training.short_window_share,
        window=plan.short_length,
        bos=getattr(rows, "bos_token_id", None),
        rotates=plan.has_short_rotation,
        seed=params.training.seed,
    )
