"""What the figures say, for people."""

from __future__ import annotations

from collections.abc import Sequence

from data_schemas.serving_advice import KindAdvice, QuestionKind, ServingWay
from tasks.advise.results import OnKind
from tasks.evaluate.labels import arm_label

KIND_LABELS: dict[QuestionKind, str] = {
    "local": "local facts",
    "far_apart": "facts far apart",
    "spread": "spread evidence",
    "given": "given questions",
}
_RETRIEVERS = {"bm25": "BM25", "embedding": "embeddings"}
_MUCH_CHEAPER = 1.05


def way_label(way: ServingWay) -> str:
    """Such as `chunks of 512, k = 8 (BM25, reverse_rank), base`."""
    arm = arm_label(way.arm)
    if way.way == "full":
        return f"whole document, {arm}"
    if way.way == "chunks":
        assert way.retrieval is not None
        cut = way.retrieval.chunking
        overlap = f" +{cut.overlap_fraction:.0%}" if cut.overlap_fraction else ""
        how = f"{way.retrieval.embedding_model or _RETRIEVERS[way.retrieval.retriever]}, {way.retrieval.order}"
        return f"chunks of {cut.max_tokens}{overlap}, k = {way.retrieval.k} ({how}), {arm}"
    if way.way == "route":
        return f"chunks first, then the whole document, {arm}"
    return f"{way.way.replace('_', '-')} over parts of {way.part_tokens}, {arm}"


def kind_advice(on: OnKind) -> KindAdvice:
    """The advice for one kind of question, in a sentence that says what was shown and what was not."""
    advised = on.advised
    cheaper = on.by_cost[: on.by_cost.index(advised)]
    is_better = any(on.is_worse(way.name) for way in cheaper)
    return KindAdvice(kind=on.kind, way=advised.name, is_distinguishable=is_better, sentence=_sentence(on, advised, is_better))


def _sentence(on: OnKind, advised: ServingWay, is_better: bool) -> str:
    results = on.results
    named = f"{KIND_LABELS[on.kind]}: {way_label(advised)}"
    num = results[advised.name].num_questions
    worse = [way for way in on.ways if on.is_worse(way.name)]
    if results[on.best].quality == 0:
        return (
            f"{KIND_LABELS[on.kind]}: not distinguishable, as no way answers any of {num} questions right; of the cheapest, "
            f"{way_label(advised)} gives the right answers the highest probability."
        )
    if advised.name == on.best:
        shown = (
            f"{len(worse)} of {len(on.ways) - 1} other ways are shown to be worse"
            if worse
            else "no other way is shown to be worse"
        )
        return f"{named} has the most right answers, {_share(on, advised.name)} of {num} questions; {shown}."
    best = {way.name: way for way in on.ways}[on.best]
    compared = on.comparisons[advised.name]
    apart = f"{compared.difference:+.2f} [{compared.low:+.2f}, {compared.high:+.2f}]"
    than = f"not shown to be worse than the best ({way_label(best)}: {_share(on, on.best)} right; difference {apart}, {num} questions)"
    ratio = f" and reads {compared.cost_ratio:.3g} times fewer tokens" if compared.cost_ratio > _MUCH_CHEAPER else ""
    cheaper = "; cheaper ways are shown to be worse" if is_better else ""
    alike = "" if worse else "not distinguishable: "
    return f"{KIND_LABELS[on.kind]}: {alike}{way_label(advised)}, {_share(on, advised.name)} right, is {than}{ratio}{cheaper}."


def _share(on: OnKind, name: str) -> str:
    return f"{on.results[name].quality:.0%}"


def overall(on_kinds: Sequence[OnKind], advice: Sequence[KindAdvice]) -> str:
    """Extend, chunk, or not distinguishable, over all kinds. `advice`: on each of `on_kinds`, in the same order."""
    by_name = {way.name: way for on in on_kinds for way in on.ways}
    extends = [one for on, one in zip(on_kinds, advice, strict=True) if _shows_need(on, by_name[one.way])]
    others = [one for one in advice if one not in extends]
    has_shown = any(one.is_distinguishable for one in advice) or any(_shows_long_worse(on) for on in on_kinds)
    if not extends and not has_shown:
        return (
            "Not distinguishable: for no kind of question was a longer window shown to be better or worse than the cheapest way, so the "
            f"cheapest serves: {_kinds(others, by_name)}."
        )
    if not extends:
        return f"{_without_need([by_name[one.way] for one in others])}: {_kinds(others, by_name)}."
    if not others:
        return (
            "Extend: for every kind of question, each way without a longer window was shown to be worse, or costs more: "
            f"{_kinds(extends, by_name)}."
        )
    return (
        f"It depends on the question. Extend for {_kinds(extends, by_name)}. No longer window was shown to be needed for "
        f"{_kinds(others, by_name)}."
    )


def _without_need(advised: Sequence[ServingWay]) -> str:
    """What to do where something was shown, but for no kind that a longer window is needed."""
    if any(map(_reads_long, advised)):
        return "No longer window was shown to be needed, and what is cheapest of the ways not shown to be worse serves"
    if all(way.way == "chunks" for way in advised):
        return "Chunk: no kind of question was shown to need a window above the base's"
    return "The base's window is enough: no kind of question was shown to need a longer one"


def _shows_need(on: OnKind, advised: ServingWay) -> bool:
    """Whether a longer window is advised, and each way without one was shown to be worse or costs more; not all only cost more."""
    place = on.by_cost.index(advised)
    within = [way for way in on.by_cost if not _reads_long(way)]
    alike = [way for way in within if not on.is_worse(way.name)]
    return _reads_long(advised) and len(alike) < len(within) and all(on.by_cost.index(way) > place for way in alike)


def _shows_long_worse(on: OnKind) -> bool:
    """Whether a way that reads whole documents with an extended model was shown to be worse than the best one."""
    return any(_reads_long(way) and on.is_worse(way.name) for way in on.ways)


def _reads_long(way: ServingWay) -> bool:
    """Whether it reads whole documents with an extended model."""
    return way.arm != "base" and way.way in ("full", "route")


def _kinds(advice: Sequence[KindAdvice], ways: dict[str, ServingWay]) -> str:
    return "; ".join(f"{KIND_LABELS[one.kind]} ({way_label(ways[one.way])})" for one in advice)
