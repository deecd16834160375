"""A small `serving_advice.json`: two sizes and two orders of passages, the whole document, and a route."""

from __future__ import annotations

from data_schemas.reorder import ChunkingAdvice
from data_schemas.reorder_strategy import ReorderStrategy
from data_schemas.serving_advice import (
    AdviceArm,
    KindAdvice,
    QuestionKind,
    RetrievalSettings,
    ServingAdvice,
    ServingWay,
    WayComparison,
    WayResult,
)


def chunks(size: int, order: ReorderStrategy, arm: AdviceArm = "fine_tuned") -> ServingWay:
    chunking = ChunkingAdvice(strategy="semantic", max_tokens=size, overlap_fraction=0)
    settings = RetrievalSettings(chunking=chunking, retriever="bm25", k=3, budget_tokens=90, order=order)
    name = f"chunks/{arm}/{size}/{order}"
    return ServingWay(name=name, way="chunks", arm=arm, window=128, retrieval=settings, answer_tokens=7)


def advice(
    best: str = "chunks/fine_tuned/30/reverse_rank", worse: tuple[str, ...] = (), arm: AdviceArm = "fine_tuned"
) -> ServingAdvice:
    """Local questions are served by `best`, for which `worse` are shown to be worse; spread ones by the whole document."""
    passages = [chunks(size, order, arm) for size in (15, 30) for order in ("none", "reverse_rank")]
    full = ServingWay(name="full/fine_tuned", way="full", arm="fine_tuned", window=512)
    route = ServingWay(
        name="route/fine_tuned", way="route", arm="fine_tuned", window=512, retrieval=passages[3].retrieval,
        cheap=passages[3].name, long=full.name, threshold=-0.5,
    )  # fmt: skip
    ways = (*passages, full, route)
    asked: tuple[tuple[QuestionKind, int, str], ...] = (("local", 24, best), ("spread", 12, full.name))
    return ServingAdvice(
        corpus="abc",
        checkpoint="def",
        questions_from="documents",
        confidence=0.95,
        ways=ways,
        results=tuple(_result(way.name, kind, num) for kind, num, _ in asked for way in ways),
        comparisons=tuple(_comparison(way.name, best, way.name in worse) for way in ways if way.name != best),
        advice=tuple(
            KindAdvice(kind=kind, way=way, is_distinguishable=bool(worse), sentence=f"{kind}: {way}.") for kind, _, way in asked
        ),
        overall="It depends on the question.",
    )


def _result(way: str, kind: QuestionKind, num_questions: int) -> WayResult:
    given = {"way": way, "kind": kind, "num_questions": num_questions, "quality": 0.5, "low": 0.4, "high": 0.6}
    return WayResult.model_validate(given | {"prompt_tokens": 90, "answer_tokens": 4, "seconds": 1})


def _comparison(way: str, best: str, is_worse: bool) -> WayComparison:
    given = {"kind": "local", "way": way, "against": best, "difference": -0.3, "low": -0.5, "high": -0.1, "cost_ratio": 1}
    return WayComparison.model_validate(given | {"p_holm": 0.01 if is_worse else 0.4})
