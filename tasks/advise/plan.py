"""The ways to compare, and what can be told before anything is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.params import AdviseParams, ChunkingParams
from data_schemas.reorder import ChunkingAdvice
from data_schemas.reorder_strategy import ReorderStrategy
from data_schemas.serving_advice import AdviceArm, RetrievalSettings, Retriever, ServingWay
from tasks.reorder import permutation

_SIZES = (8, 3)  # parts of the budget for passages
_SMALLEST = 16


@dataclass(frozen=True)
class Planned:
    """`ways` to measure, and in `notes` what is not measured, each with the reason."""

    ways: tuple[ServingWay, ...]
    notes: tuple[str, ...]


def plan_ways(
    advise: AdviseParams,
    chunking: ChunkingParams,
    windows: Mapping[AdviceArm, int],
    base_window: int,
    *,
    longest_document: int,
    shortest_document: int,
) -> Planned:
    """The ways of these parameters, but for `route`, whose threshold is not known before the others are measured.

    Args:
        windows: tokens of each measured model's window; `base_window` also where the base is not measured.
        longest_document, shortest_document: in tokens, of those that questions are asked about.

    Raises:
        UserError: no way is left; says why each one is left out.
    """
    ways: list[ServingWay] = []
    notes: list[str] = []
    budget = advise.passage_tokens or base_window // 2
    for arm, window in windows.items():
        if "full" in advise.ways:
            if shortest_document >= window:
                notes.append(f"full on {arm}: no document fits its window of {window} tokens")
            else:
                answer = advise.answer_tokens
                ways.append(ServingWay(name=f"full/{arm}", way="full", arm=arm, window=window, answer_tokens=answer))
        if "chunks" in advise.ways:
            ways += _chunk_ways(advise, chunking, arm, window, budget)
        for way in ("map_reduce", "refine"):
            if way not in advise.ways:
                continue
            if longest_document <= budget:
                notes.append(f"{way} on {arm}: every document fits one part of {budget} tokens")
            elif longest_document < window:
                notes.append(f"{way} on {arm}: every document fits its window of {window} tokens")
            elif (part := budget - advise.note_tokens if way == "refine" else budget) < _SMALLEST:
                notes.append(f"{way} on {arm}: notes of {advise.note_tokens} tokens leave no room in the budget of {budget}")
            else:
                ways.append(_note_way(way, advise, arm, window, part))
    too_large = [size for size in advise.chunk_tokens or () if size > budget]
    if too_large and "chunks" in advise.ways:
        notes.append(f"passages of {', '.join(map(str, too_large))} tokens: above the budget of {budget} for all passages")
    if not ways:
        why = "; ".join(notes) or f"no passage is as short as the budget of {budget} for all passages"
        raise UserError(f"No way can be measured: {why}. Add to advise.ways or advise.arms.")
    return Planned(tuple(ways), tuple(notes))


def _note_way(way: str, advise: AdviseParams, arm: AdviceArm, window: int, part: int) -> ServingWay:
    """`part`: tokens of a part of the document. With `refine` it is smaller, because the prompt also has the earlier note."""
    return ServingWay.model_validate(
        {
            "name": f"{way}/{arm}",
            "way": way,
            "arm": arm,
            "window": window,
            "part_tokens": part,
            "note_tokens": advise.note_tokens,
            "answer_tokens": advise.answer_tokens,
        }
    )


def _chunk_ways(
    advise: AdviseParams, chunking: ChunkingParams, arm: AdviceArm, window: int, budget: int
) -> Iterator[ServingWay]:
    sizes = advise.chunk_tokens or tuple(max(_SMALLEST, budget // share) for share in _SIZES)
    retrievers: tuple[Retriever, ...] = ("bm25", "embedding") if advise.embedding_model else ("bm25",)
    for size in dict.fromkeys(size for size in sizes if size <= budget):
        k = budget // size
        for overlap in dict.fromkeys(advise.overlaps):
            cut = _cut(chunking, size, overlap)
            for retriever in retrievers:
                for order in _different(advise.orders, k):
                    settings = RetrievalSettings(
                        chunking=cut,
                        retriever=retriever,
                        embedding_model=_folder_name(advise.embedding_model) if retriever == "embedding" else None,
                        k=k,
                        budget_tokens=budget,
                        order=order,
                    )
                    yield ServingWay(
                        name=_name(arm, settings),
                        way="chunks",
                        arm=arm,
                        window=window,
                        retrieval=settings,
                        answer_tokens=advise.answer_tokens,
                    )


def _folder_name(folder: str | None) -> str | None:
    """Of a path only its last part is written into a release."""
    return Path(folder).expanduser().resolve().name if folder else None


def _cut(chunking: ChunkingParams, size: int, overlap: float) -> ChunkingAdvice:
    """Without overlap as documents are cut in training; `semantic` and `fixed` have none."""
    if overlap:
        return ChunkingAdvice(strategy="overlap", max_tokens=size, overlap_fraction=overlap)
    strategy = "fixed" if chunking.strategy == "overlap" else chunking.strategy
    return ChunkingAdvice(strategy=strategy, max_tokens=size, overlap_fraction=0.0)


def _different(orders: Sequence[ReorderStrategy], k: int) -> list[ReorderStrategy]:
    """The orders that differ for `k` passages; of equal ones the first. Without a curve `calibrated` equals `important_first_last`."""
    found: dict[tuple[int, ...], ReorderStrategy] = {}
    for order in orders:
        found.setdefault(tuple(permutation(order, k)), order)
    return list(found.values())


def _name(arm: str, settings: RetrievalSettings) -> str:
    cut = settings.chunking
    overlap = f"+{cut.overlap_fraction:g}" if cut.overlap_fraction else ""
    return f"chunks/{arm}/{settings.retriever}/{settings.k}x{cut.max_tokens}{overlap}/{settings.order}"


def told_beforehand(
    lengths: Sequence[int], base_window: int, target_length: int, needed: int, what: str = "held-out documents"
) -> str:
    """What the lengths of the documents alone tell; empty where measuring is needed.

    Args:
        lengths: tokens of each document.
        needed: tokens of question and answer beside a document.
        what: what the documents are called.
    """
    longest, shortest = max(lengths), min(lengths)
    if longest + needed <= base_window:
        return (
            f"Nothing is long: the longest of {len(lengths)} {what} has {longest} tokens and fits the base's window of "
            f"{base_window} with question and answer. Neither a longer window nor chunks are needed."
        )
    if shortest + needed > target_length:
        return (
            f"Nothing fits: the shortest of {len(lengths)} {what} has {shortest} tokens, and the extended window "
            f"{target_length}. No whole document can be asked about; chunks or summaries of parts are left."
        )
    return ""
