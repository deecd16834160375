"""Perplexity as other papers measured it, to compare with their tables.

The two figures compare neither with each other nor with Ropeway's own perplexity, whose scored tokens are the same at every
length. Both slide a window of `length` tokens over text in steps of 256 tokens, after Press et al. 2021 (arXiv 2108.12409,
appendix B).

yarn      Peng et al. 2023 (arXiv 2309.00071, section 4.3.1) and the evaluation script of their repository. A window scores the
          tokens that no window before it has scored: all of the first window, 256 of each later one, fewer of the last.
          A document's windows are averaged as means, so the 256 tokens of a later window weigh as much as all of the first:
          exp(mean over windows of nll / num_tokens).
longlora  Chen et al. 2023 (arXiv 2309.12307, section 4.1) and the `eval.py` of their repository. Every window scores all its tokens but
          the first, so most tokens are scored many times with contexts of every size: exp(sum of nll / sum of tokens).

Deviations from the papers' scripts. Both run over the first tokens of a document only, as many as the longest measured length, so
at the longest length there is one window. YaRN's script puts BOS in front of every window, if the tokenizer has one; here only
a document's first window has it. LongLoRA's script concatenates all documents and takes windows from that; here windows stay
inside a document. As in the scripts, a last window that does not fit the step is shortened for yarn and left out for longlora.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STRIDE = 256
MAX_DOCUMENTS = 10  # as many as YaRN's Proof-pile figure was made from; windows are many

Protocol = Literal["yarn", "longlora"]


@dataclass(frozen=True)
class ProtocolWindow:
    """Tokens start..end-1 of a document, of which the last `num_targets` are scored."""

    start: int
    end: int
    num_targets: int


def protocol_windows(protocol: Protocol, num_tokens: int, length: int) -> list[ProtocolWindow]:
    """The windows of `length` tokens over a text of `num_tokens` tokens, 2 <= length <= num_tokens."""
    if not 2 <= length <= num_tokens:
        raise ValueError(f"length {length} must lie in 2..{num_tokens}")
    if protocol == "longlora":
        starts = range(0, num_tokens - length + 1, STRIDE)
        return [ProtocolWindow(start, start + length, length - 1) for start in starts]
    windows: list[ProtocolWindow] = []
    scored = 1  # the first token is predicted from nothing
    for start in range(0, num_tokens, STRIDE):
        end = min(start + length, num_tokens)
        windows.append(ProtocolWindow(start, end, min(end - scored, end - start - 1)))  # length may be below the step
        scored = end
        if end == num_tokens:
            break
    return windows
