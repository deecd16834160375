"""What a measured `serving_advice.json` says about passages: how to cut, find and order them, and whether that was shown to win."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_schemas.reorder_strategy import ReorderStrategy
from data_schemas.serving_advice import AdviceArm, QuestionKind, RetrievalSettings, ServingAdvice, ServingWay

KIND_NAMES: dict[QuestionKind, str] = {
    "local": "local facts",
    "far_apart": "facts far apart",
    "spread": "spread evidence",
    "given": "the given questions",
}
ARM_NAMES: dict[AdviceArm, str] = {
    "base": "base model",
    "scaling_only": "base model under scaled RoPE",
    "fine_tuned": "fine-tuned model",
}


@dataclass(frozen=True)
class AdvisedPassages:
    """Settings of the way with passages that is advised for most questions.

    Args:
        kinds: kinds of question that it is advised for, alone or as the first step of a route.
        size_won: every other size or overlap was shown to be worse on one of `kinds`, and none to be better on any kind.
        order_won: the same of every other order at this size and overlap.
    """

    way: ServingWay
    settings: RetrievalSettings
    kinds: tuple[QuestionKind, ...]
    size_won: bool
    order_won: bool

    @property
    def order_for_release(self) -> ReorderStrategy | None:
        """The order, if it was shown to win with the fine-tuned model, which a release is; else None."""
        return self.settings.order if self.order_won and self.way.arm == "fine_tuned" else None

    @property
    def sentence(self) -> str:
        """The settings and their evidence, for people."""
        settings, arm = self.settings, ARM_NAMES[self.way.arm]
        cut = f"passages of {settings.chunking.max_tokens} tokens with an overlap of {settings.chunking.overlap_fraction:g}"
        kinds = " and ".join(KIND_NAMES[kind] for kind in self.kinds)
        return (
            f"serving_advice.json advises, with the {arm}, {cut}, k = {settings.k}, at most {settings.budget_tokens} tokens of passages, "
            f"found by {settings.retriever}, in the order {settings.order}, for {kinds}; "
            f"{'this size was' if self.size_won else 'no size was'} shown to win, and "
            f"{'this order was' if self.order_won else 'no order was'}."
        )


def most_advised(advice: ServingAdvice) -> ServingWay | None:
    """The way that is advised for most questions; of equal ones the first. None: no question was asked."""
    votes = _votes(advice, {one.way: one.way for one in advice.advice})
    return advice.way(max(votes, key=votes.__getitem__)) if votes else advice.ways[0] if len(advice.ways) == 1 else None


def advised_passages(advice: ServingAdvice) -> AdvisedPassages | None:
    """None: no way with passages is advised for any kind of question."""
    steps = {one.way: cheap_way(advice, advice.way(one.way)) for one in advice.advice}
    names = {way: step.name for way, step in steps.items() if step is not None}
    votes = _votes(advice, names)
    if not votes:
        return None
    way = advice.way(max(votes, key=votes.__getitem__))
    settings = way.retrieval
    assert settings is not None
    others = [(one.name, one.retrieval) for one in advice.ways if one.way == "chunks" and one.arm == way.arm and one != way]
    sizes = [name for name, other in others if other is not None and other.chunking != settings.chunking]
    orders = [
        name
        for name, other in others
        if other is not None
        and other.order != settings.order
        and other.model_copy(update={"order": settings.order}) == settings
    ]
    kinds = tuple(one.kind for one in advice.advice if names.get(one.way) == way.name)
    return AdvisedPassages(way, settings, kinds, _won(advice, way.name, sizes, kinds), _won(advice, way.name, orders, kinds))


def _votes(advice: ServingAdvice, names: Mapping[str, str]) -> dict[str, int]:
    """Questions for which each of `names`, which are by advised way, is advised."""
    votes: dict[str, int] = {}
    for one in advice.advice:
        if name := names.get(one.way):
            asked = next((r.num_questions for r in advice.results if (r.way, r.kind) == (one.way, one.kind)), 1)
            votes[name] = votes.get(name, 0) + asked
    return votes


def cheap_way(advice: ServingAdvice, way: ServingWay) -> ServingWay | None:
    """`way` itself if it serves passages, or the first step of a route that does; else None."""
    if way.way == "route" and way.cheap is not None:
        way = advice.way(way.cheap)
    return way if way.way == "chunks" and way.retrieval is not None else None


def _won(advice: ServingAdvice, name: str, others: Sequence[str], kinds: Sequence[QuestionKind]) -> bool:
    """Whether one of `kinds` shows each of `others` to be worse than the way `name`, and no kind shows `name` to be worse than one.

    As several kinds could show it, each p-value counts as many times as there are kinds in the advice (Bonferroni).
    """
    alpha = 1 - advice.confidence
    shown = [one for one in advice.comparisons if one.difference < 0 and one.p_holm < alpha]
    if not others or any(one.way == name and one.against in others for one in shown):
        return False
    certain = [one for one in shown if one.against == name and one.p_holm * len(advice.advice) < alpha]
    return any({one.way for one in certain if one.kind == kind}.issuperset(others) for kind in kinds)
