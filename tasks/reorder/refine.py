"""For texts longer than any context window: one text that is improved by each further piece.

    piece ──process──▶ draft ──improve with the next piece──▶ draft ──improve … ──▶ the final text

One call follows another, so it is slower than `tasks.reorder.map_reduce` where calls can run at once. The draft takes a part of each
window. What a piece says can be lost at every later piece; `tasks.reorder.dropped` counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data_schemas.errors import UserError
from tasks.reorder.kept_calls import Cache, keep_nothing
from tasks.reorder.levels import Level, Part, kept, make_part, refuse_above_window
from tasks.reorder.map_reduce import LevelCall, MapReduceResult
from tasks.reorder.splitting import Chunk, CountTokens, chunks_of


def refine(
    text: str,
    *,
    process: LevelCall,
    improve: LevelCall,
    count_tokens: CountTokens,
    window_tokens: int,
    draft_tokens: int,
    chunk: Callable[[str], Sequence[str]] | None = None,
    cache: Cache | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> MapReduceResult:
    """Process a text of any length piece by piece. Each level of the result is one draft, made from the one before and a chunk.

    Args:
        process: makes the first draft, of the first piece.
        improve: makes a draft of the last draft and the next piece, in this order.
        window_tokens: maximum number of text tokens in one call, draft and piece together.
        draft_tokens: most tokens of a draft; a longer one is cut after a sentence. Pieces have what it leaves of the window.
        chunk, cache, progress: as in `map_reduce`.

    Raises UserError if the draft leaves no room, or a piece exceeds it.
    """
    if not 1 <= draft_tokens < window_tokens:
        raise UserError(f"draft_tokens is {draft_tokens}: give between 1 and {window_tokens - 1}, below window_tokens.")
    room = window_tokens - draft_tokens
    chunks = chunks_of(text, room, count_tokens, chunk)
    refuse_above_window([one.text for one in chunks], room, count_tokens, "Piece", "let `chunk` cut smaller")
    keep = keep_nothing if cache is None else cache
    levels: list[Level] = []
    for one in chunks:
        group: list[Part | Chunk] = [levels[-1][0], one] if levels else [one]
        call, stage = (improve, "improve") if levels else (process, "process")
        texts = [source.text for source in group]

        def answer(call: LevelCall = call, texts: Sequence[str] = texts) -> str:
            return call(texts, draft_tokens)

        levels.append((make_part(kept(keep, stage, texts, answer), group, draft_tokens, count_tokens),))
        progress(f"read {one.number + 1} of {len(chunks)} pieces")
    return MapReduceResult(levels[-1][0].text if levels else "", (1,) * len(levels), chunks, tuple(levels))
