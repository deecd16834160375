"""Perplexity by context length on fixed target tokens.

The last k tokens of a document are the targets at every context length and for every model; only the context grows, to
the left. So a difference between two lengths comes from the context, not from other text. (Averages over sliding
windows, as in LongLoRA and YaRN, change the scored tokens with the length.)

    document  |........................................|targets|
    length 3                               BOS |context|targets|
    length 4               BOS |.......context.........|targets|

A window begins with BOS if the base was trained with it, wherever in the document it starts, as training rows do (see
`tasks.tokens.special_tokens`). The BOS counts in its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_schemas.errors import UserError
from tasks.evaluate.heldout import HeldOutDocument


@dataclass(frozen=True)
class TargetDocument:
    """The measured parts of one document: its first and its last tokens, both int32 of equal length, both with BOS in front if
    the base was trained with it (`has_bos`).

    The last `num_targets` tokens are scored. Other papers' protocols run over `head`. `num_tokens` counts the whole document.
    """

    doc_id: str
    head: np.ndarray
    tail: np.ndarray
    num_tokens: int
    num_targets: int
    has_bos: bool = False

    @classmethod
    def of(cls, document: HeldOutDocument, *, max_length: int, num_targets: int) -> TargetDocument:
        """`document`, to be measured in windows of up to `max_length` tokens."""
        ids, num_bos = document.token_ids, document.num_leading
        text_start = max(num_bos, len(ids) - (max_length - num_bos))
        tail = np.concatenate([ids[:num_bos], ids[text_start:]])
        return cls(document.doc_id, ids[:max_length], tail, len(ids), num_targets, bool(num_bos))

    @property
    def target_start(self) -> int:
        """Index in the document of the first target token."""
        return self.num_tokens - self.num_targets

    def window(self, length: int) -> np.ndarray:
        """BOS, if the base was trained with it, context and targets, int32 [length]."""
        if not self.num_targets + self.has_bos < length <= len(self.tail):
            raise ValueError(f"length {length} must lie in {self.num_targets + self.has_bos + 1}..{len(self.tail)}")
        if not self.has_bos:
            return self.tail[-length:]
        return np.concatenate([self.tail[:1], self.tail[len(self.tail) - length + 1 :]])


def position_ranges(length: int) -> list[tuple[int, int]]:
    """Ranges start..end-1 of the positions 1..length-1, each from a power of two up to the next: [1,2) [2,4) [4,8) ...

    Nothing predicts position 0. Perplexity falls about as a power of the position, so ranges of equal ratio show it evenly.
    """
    starts = [1 << power for power in range((length - 1).bit_length()) if 1 << power < length]
    return [(start, min(2 * start, length)) for start in starts]


def evaluation_lengths(
    requested: Sequence[int] | None, *, base_window: int, target_length: int, target_tokens: int
) -> tuple[int, ...]:
    """Context lengths, ascending: as requested, else half the base's window, doubled up to the target, and the target itself.

    Raises:
        UserError: a requested length leaves no context in front of the target tokens, or no length is left.
    """
    if requested:
        lengths = sorted(set(requested))
        if lengths[0] <= target_tokens:
            raise UserError(
                f"evaluation.lengths holds {lengths[0]}, which leaves no context in front of the {target_tokens} target tokens: "
                "leave it out or lower evaluation.target_tokens."
            )
        return tuple(lengths)
    doubling, length = {target_length}, max(1, base_window // 2)
    while length < target_length:
        doubling.add(length)
        length *= 2
    usable = tuple(sorted(n for n in doubling if n > target_tokens))
    if not usable:
        raise UserError(
            f"evaluation.target_tokens is {target_tokens}, which leaves no context within the target length of {target_length} "
            "tokens: lower evaluation.target_tokens."
        )
    return usable


def target_documents(
    documents: Sequence[HeldOutDocument], *, max_length: int, num_documents: int, num_targets: int
) -> list[TargetDocument]:
    """The first `num_documents` with at least `max_length` tokens, so that every length has the same documents.

    Raises:
        UserError: fewer than two qualify, too few for an interval.
    """
    long_enough = [d for d in documents if len(d.token_ids) >= max_length]
    if len(long_enough) < 2:
        raise UserError(
            f"Only {len(long_enough)} held-out document(s) have at least {max_length} tokens and evaluation needs 2: add longer "
            "documents, raise corpus.heldout_fraction, or lower evaluation.lengths or model.target_length."
        )
    return [TargetDocument.of(d, max_length=max_length, num_targets=num_targets) for d in long_enough[:num_documents]]


def perplexity(nll: np.ndarray, num_tokens: np.ndarray) -> float:
    """exp(sum of nats / sum of tokens): every token weighs the same, in whichever document it is."""
    return float(np.exp(np.sum(nll) / np.sum(num_tokens)))
