"""Where BOS and EOS stand, in training rows, in validation and in evaluation.

Every piece of a document begins with BOS if the base was trained with it, also a piece that starts in the middle of the document. Many
models attend to their first token where nothing else matters (Xiao et al. 2023, arXiv 2309.17453), and some give nonsense without
BOS. EOS ends the last piece of a document only: a cut is not an end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class SpecialTokens:
    """Tokens in front of each piece and at the end of a document; None if the base was not trained with one."""

    bos: int | None
    eos: int | None

    @property
    def num(self) -> int:
        """Tokens around a whole document."""
        return self.num_bos + (self.eos is not None)

    @property
    def num_bos(self) -> int:
        return int(self.bos is not None)

    @property
    def opening(self) -> np.ndarray:
        """BOS, int32 [0 or 1]."""
        return np.array([self.bos] if self.bos is not None else [], np.int32)

    def around(self, token_ids: list[int] | np.ndarray, is_last: bool) -> np.ndarray:
        """int32 [tokens]: a piece of a document, with BOS in front, and with EOS if it `is_last`."""
        eos = [self.eos] if self.eos is not None and is_last else []
        return np.concatenate([self.opening, np.asarray(token_ids, np.int32), np.array(eos, np.int32)])


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> SpecialTokens:
    """BOS if the tokenizer adds one by itself, EOS if it has one."""
    ids = tokenizer("a").input_ids
    adds_bos = tokenizer.bos_token_id is not None and bool(ids) and ids[0] == tokenizer.bos_token_id
    return SpecialTokens(tokenizer.bos_token_id if adds_bos else None, tokenizer.eos_token_id)
