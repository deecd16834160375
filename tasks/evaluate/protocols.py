"""Windows of perplexities as published: YaRN's and LongLoRA's own, which compare neither with each other nor with Ropeway's.

yarn          Peng et al. 2023 (arXiv 2309.00071) and `eval.sh` of jquesnelle/yarn (MIT), option `--truncate`: their Proof-pile tables.
              Each document is cut to the evaluated length, BOS in front included, and is one window. All its tokens are scored.
yarn_sliding  The same script without `--truncate`: their GovReport table. Windows of the evaluated length slide over the whole
              document in steps of 256 tokens. BOS is in front of every window. A window scores what no window before it has scored.
longlora      Chen et al. 2023 (arXiv 2309.12307) and `eval.py` of dvlab-research/LongLoRA (Apache-2.0). Documents stand end to end.
              Windows start every 256 tokens, and each scores all its tokens but the first. The last window that fits is left out.

YaRN's figure is exp(mean over windows of the mean loss); LongLoRA's is exp(sum of losses / number of scored tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

STRIDE = 256
YARN_DOCUMENTS = 10  # in the Proof-pile table; 50 in the GovReport table
SLIDING_DOCUMENTS = 50

Protocol = Literal["yarn", "yarn_sliding", "longlora"]
PROTOCOLS_OF: dict[str, tuple[Protocol, ...]] = {"yarn": ("yarn", "yarn_sliding"), "longlora": ("longlora",)}


@dataclass(frozen=True)
class ProtocolText:
    """A document as int32 token ids, without special tokens."""

    doc_id: str
    token_ids: np.ndarray


@dataclass(frozen=True)
class ProtocolWindow:
    """Tokens of one window, int32 [tokens] with BOS, of which the last `num_targets` are scored.

    `doc_id` is the document in which it starts, and `number` counts that document's windows.
    """

    doc_id: str
    number: int
    tokens: np.ndarray
    num_targets: int


def protocol_windows(protocol: Protocol, texts: Sequence[ProtocolText], length: int, bos: int | None) -> list[ProtocolWindow]:
    """All windows of `length` tokens, at least 2, in the order of the documents.

    Args:
        bos: the tokenizer's first token; None where it has none, and then the first token of a text is not scored.
    """
    if length < 2:
        raise ValueError(f"length {length} must be at least 2")
    if protocol == "longlora":
        return _longlora(texts, length, bos)
    room = length - (bos is not None)
    if protocol == "yarn":
        chosen = [text for text in texts if len(text.token_ids) >= room][:YARN_DOCUMENTS]
        return [_yarn(text.doc_id, 0, text.token_ids[:room], room, bos) for text in chosen]
    return [window for text in texts[:SLIDING_DOCUMENTS] for window in _sliding(text, room, bos)]


def _sliding(text: ProtocolText, room: int, bos: int | None) -> list[ProtocolWindow]:
    windows: list[ProtocolWindow] = []
    num_tokens, scored = len(text.token_ids), 0
    for number, start in enumerate(range(0, num_tokens, STRIDE)):
        end = min(start + room, num_tokens)
        windows.append(_yarn(text.doc_id, number, text.token_ids[start:end], end - scored, bos))
        scored = end
        if end == num_tokens:
            break
    return windows


def _yarn(doc_id: str, number: int, tokens: np.ndarray, num_new: int, bos: int | None) -> ProtocolWindow:
    """A window whose last `num_new` tokens are scored. The first token of a text without BOS is not, as nothing predicts it."""
    window = tokens if bos is None else np.concatenate([np.array([bos], np.int32), tokens])
    return ProtocolWindow(doc_id, number, window, min(num_new, len(window) - 1))


def _longlora(texts: Sequence[ProtocolText], length: int, bos: int | None) -> list[ProtocolWindow]:
    front = np.empty(0, np.int32) if bos is None else np.array([bos], np.int32)
    pieces = [np.concatenate([front, text.token_ids]) for text in texts]
    stream = np.concatenate([np.empty(0, np.int32), *pieces])
    ends = np.cumsum([len(piece) for piece in pieces])
    windows: list[ProtocolWindow] = []
    counted: dict[int, int] = {}
    for start in range(0, len(stream) - length, STRIDE)[:-1]:
        document = int(np.searchsorted(ends, start, side="right"))
        counted[document] = number = counted.get(document, -1) + 1
        windows.append(ProtocolWindow(texts[document].doc_id, number, stream[start : start + length], length - 1))
    return windows
