"""Ways and their answers, written down instead of asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_schemas.params import PriceParams
from data_schemas.reorder import ChunkingAdvice
from data_schemas.serving_advice import AdviceArm, RetrievalSettings, ServingAdvice, ServingWay
from tasks.advise.advice import Measured, Origin, make_advice
from tasks.advise.prices import Prices
from tasks.advise.rows import AnswerRow


def full(arm: AdviceArm = "scaling_only") -> ServingWay:
    return ServingWay(name=f"full/{arm}", way="full", arm=arm, window=2048)


def chunks() -> ServingWay:
    cut = ChunkingAdvice(strategy="semantic", max_tokens=64, overlap_fraction=0)
    settings = RetrievalSettings(chunking=cut, retriever="bm25", k=2, budget_tokens=128, order="none")
    return ServingWay(name="chunks/base", way="chunks", arm="base", window=512, retrieval=settings)


def notes() -> ServingWay:
    return ServingWay(name="map_reduce/base", way="map_reduce", arm="base", window=512, part_tokens=128, note_tokens=16)


def rows_of(way: ServingWay, scores: Sequence[float], tokens: int, num_documents: int | None = None) -> list[AnswerRow]:
    """One local question a document, or as many documents as given."""
    documents = num_documents or len(scores)
    return [
        AnswerRow(
            way=way.name, question=f"q{number}", kind="local", document_id=f"d{number % documents}", score=score,
            control_score=None, logprob=-1.0, control_logprob=None, own_logprob=-0.01 * number, prompt_tokens=tokens,
            answer_tokens=1, seconds=0.1, output="", control_output=None, why_not="",
        )
        for number, score in enumerate(scores)
    ]  # fmt: skip


def advice_of(ways: Sequence[ServingWay], rows: Mapping[str, Sequence[AnswerRow]]) -> ServingAdvice:
    measured = Measured(tuple(ways), rows)
    return make_advice(measured, Origin("d" * 32, None, "documents"), Prices(PriceParams(), None), confidence=0.95, seed=0)
