"""What is done with passages besides ordering: near-duplicates, overlaps, neighbours, budgets, instructions and question."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.reorder import RecallPoint
from tasks.publish.reorder_config import make_config
from tasks.reorder import ChunkReorder, ReorderOptions, permutation
from tasks.reorder.near_duplicates import NearDuplicates, word_ngrams

PARAMS = PipelineParams.model_validate(
    {"run_name": "r", "corpus": {"sources": ["books"]}, "model": {"base": "demo", "target_length": 1024}}
)
REORDER = ChunkReorder(make_config(PARAMS, []))
TEXT = "the traveller pays one coin then crosses the rope bridge and looks back at the deep valley below the cliffs"


def cut(start: int, end: int, score: float, doc_id: str = "d", **more: Any) -> dict[str, Any]:
    return {"text": TEXT[start:end], "doc_id": doc_id, "char_start": start, "char_end": end, "score": score} | more


def texts(passages: list[Any]) -> list[str]:
    return [passage["text"] for passage in passages]


def test_the_best_rank_of_near_duplicates_is_kept_and_the_others_are_named() -> None:
    passages = [TEXT, "something else entirely", TEXT.upper() + "!", TEXT + " again"]
    arranged = REORDER.arrange(passages, near_duplicates=0.9)
    assert arranged.passages == [TEXT, "something else entirely"]
    assert [(m.passage, m.rank, m.into_rank, m.kind) for m in arranged.merged] == [
        (passages[2], 3, 1, "near_duplicate"),
        (passages[3], 4, 1, "near_duplicate"),
    ]
    assert arranged.merged[0].similarity == 1.0
    assert arranged.merged[1].similarity == pytest.approx(16 / 17)
    assert len(REORDER.apply(passages, near_duplicates=0.95)) == 3
    assert len(REORDER.apply(passages)) == 4


words = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


@given(st.lists(words, max_size=8), st.floats(0.05, 1))
def test_near_duplicates_are_those_of_a_slow_search(passages: list[str], threshold: float) -> None:
    def similarity(one: str, other: str) -> float:
        first, second = word_ngrams(one), word_ngrams(other)
        return len(first & second) / len(first | second)

    kept: list[str] = []
    found = NearDuplicates(threshold)
    for text in passages:
        best = max((similarity(text, other) for other in kept), default=0.0)
        twin = found.twin(text)
        assert (twin is not None) == (best >= threshold)
        if twin:
            assert twin[1] == best
            assert twin[0] == [similarity(text, other) for other in kept].index(best)
        else:
            found.keep(len(kept), text)
            kept.append(text)


def test_overlapping_passages_become_one_text_at_the_best_ones_place() -> None:
    given_ = [
        cut(30, 60, 0.2, num_tokens=3),
        {"text": "x", "score": 0.5},
        cut(0, 40, 0.9, id=7, num_tokens=4),
        cut(35, 50, 0.1),
    ]
    arranged = REORDER.arrange(given_, join_overlaps=True)
    assert arranged.passages == [{**cut(0, 60, 0.9, num_tokens=7), "id": 7}, {"text": "x", "score": 0.5}]
    assert [(m.rank, m.into_rank, m.kind) for m in arranged.merged] == [(3, 1, "overlap"), (4, 1, "overlap")]
    assert given_[2]["text"] == TEXT[:40]
    assert len(REORDER.apply(given_)) == 4


def test_ranges_that_disagree_or_touch_or_lie_in_other_documents_are_not_joined() -> None:
    wrong = cut(10, 30, 0.5) | {"text": "z" * 20}
    short = cut(10, 30, 0.4) | {"text": TEXT[10:29]}
    for other in (wrong, short, cut(20, 40, 0.5), cut(10, 30, 0.5, doc_id="e")):
        arranged = REORDER.arrange([cut(0, 20, 0.9), other], join_overlaps=True)
        assert not arranged.merged
        assert arranged.passages[1] is other


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30), st.sampled_from("de")), max_size=8))
def test_joined_passages_cover_the_same_characters_and_share_none(ranges: list[tuple[int, int, str]]) -> None:
    passages = [cut(a, min(len(TEXT), a + n), 1 / (1 + i), doc) for i, (a, n, doc) in enumerate(ranges)]
    result = REORDER.apply(passages, join_overlaps=True)

    def covered(of: list[dict[str, Any]]) -> list[tuple[str, int]]:
        return [(p["doc_id"], i) for p in of for i in range(p["char_start"], p["char_end"])]

    assert set(covered(result)) == set(covered(passages))
    assert len(covered(result)) == len(set(covered(result)))
    assert all(p["text"] == TEXT[p["char_start"] : p["char_end"]] for p in result)


def test_chunks_that_follow_each_other_stand_together_in_reading_order() -> None:
    a, b, c = cut(60, 80, 0.9), cut(40, 60, 0.1), cut(0, 20, 0.6)  # b ends where a starts
    other, stripped = {"text": "other", "score": 0.8}, cut(82, 90, 0.05)
    arranged = REORDER.arrange([a, b, c, other, stripped], keep_adjacent=True)
    assert arranged.passages == [b, a, stripped, c, other]  # units by rank: (b a stripped) other c
    assert arranged.groups == ((4, 1, 5), (3,), (2,))
    assert REORDER.arrange([a, b, c, other, stripped], keep_adjacent=True, max_gap_chars=0).groups == (
        (4, 1), (3,), (5,), (2,),
    )  # fmt: skip
    overlapping = [cut(50, 80, 0.9), other, cut(30, 60, 0.1)]
    assert REORDER.apply(overlapping, keep_adjacent=True) == [overlapping[2], overlapping[0], other]
    nested = [cut(0, 50, 0.9), cut(10, 20, 0.8), cut(50, 60, 0.7)]  # the third follows the first, not the second
    assert REORDER.arrange(nested, keep_adjacent=True).groups == ((1, 2, 3),)


def test_a_budget_keeps_the_most_relevant_and_names_what_was_dropped() -> None:
    passages = [{"text": "x" * n, "score": -i} for i, n in enumerate((4, 6, 3, 2, 1))]
    arranged = REORDER.arrange(passages, 10, count_tokens=len)
    assert texts(arranged.passages) == ["xxxx", "xxxxxx"]
    assert [(d.rank, d.num_tokens) for d in arranged.dropped] == [(3, 3), (4, 2), (5, 1)]
    arranged = REORDER.arrange(passages, 9, count_tokens=len)
    assert sorted(map(len, texts(arranged.passages))) == [2, 3, 4]  # what fits beside the better ones
    assert arranged.num_tokens == 9
    assert REORDER.apply([p | {"num_tokens": 5} for p in passages], 10) == [p | {"num_tokens": 5} for p in passages[:2]]
    assert REORDER.apply(passages, 0, count_tokens=len) == []


def test_a_worse_passage_that_overlaps_costs_only_what_it_adds() -> None:
    arranged = REORDER.arrange([cut(0, 40, 0.9), cut(30, 45, 0.5), cut(60, 80, 0.4)], 45, count_tokens=len, join_overlaps=True)
    assert texts(arranged.passages) == [TEXT[:45]]
    assert arranged.num_tokens == 45
    assert [d.num_tokens for d in arranged.dropped] == [20]


def test_a_near_duplicate_of_a_dropped_passage_may_stand_in_for_it() -> None:
    longer = TEXT + " again"
    arranged = REORDER.arrange([longer, TEXT], len(TEXT), count_tokens=len, near_duplicates=0.8)
    assert arranged.passages == [TEXT]
    assert [d.passage for d in arranged.dropped] == [longer]


passages_ = st.lists(
    st.tuples(st.integers(0, 90), st.integers(1, 30), st.sampled_from(["d", "e", None]), st.integers(-2, 2)), max_size=9
)


@given(passages_, st.integers(0, 120), st.integers(0, 3), st.booleans(), st.booleans(), st.booleans())
def test_never_over_budget_and_every_passage_is_kept_dropped_or_merged(
    ranges: list[tuple[int, int, str | None, int]], budget: int, separator: int, join: bool, adjacent: bool, dedupe: bool
) -> None:
    passages = [cut(a, min(len(TEXT), a + n), score) | {"doc_id": doc} for a, n, doc, score in ranges]
    arranged = REORDER.arrange(
        passages,
        budget + 5,
        count_tokens=len,
        separator_tokens=separator,
        question="why?" if budget > 1 else None,
        join_overlaps=join,
        keep_adjacent=adjacent,
        near_duplicates=0.7 if dedupe else None,
    )
    assert len(arranged.prompt("#" * separator)) == arranged.num_tokens <= budget + 5
    ranks = [rank for group in arranged.groups for rank in group]
    assert len(ranks) == len(arranged.passages)
    others = [d.rank for d in arranged.dropped] + [m.rank for m in arranged.merged]
    assert sorted(ranks + others) == list(range(1, len(passages) + 1))
    assert all(m.into_rank in ranks and m.into_rank < m.rank for m in arranged.merged)
    if ranks and arranged.dropped and not (join or dedupe):
        assert all(d.num_tokens > budget + 5 - arranged.num_tokens for d in arranged.dropped)


def test_instructions_stand_first_and_the_question_last_and_both_count() -> None:
    arranged = REORDER.arrange(["aa", "bb", "cc"], 9, count_tokens=len, instructions="Do", question="Why")
    assert arranged.parts() == ["Do", "aa", "bb", "Why"]
    assert arranged.prompt(separator=" ") == "Do aa bb Why"
    assert arranged.prompt("|", template=lambda passage: f"<{passage}>") == "Do|<aa>|<bb>|Why"
    assert REORDER.apply(["aa", "bb", "cc"], instructions="Do", question="Why") == ["Do", "aa", "cc", "bb", "Why"]
    assert texts(REORDER.apply([{"text": "b"}], question="Q")[:1]) == ["b"]


def test_calibrated_takes_the_curve_at_the_prompts_size() -> None:
    def curve(length: int, *recalls: float) -> list[RecallPoint]:
        depths = [i / (len(recalls) - 1) for i in range(len(recalls))]
        return [
            RecallPoint(length=length, depth=depth, n=9, recall=recall, low=recall - 0.01, high=recall + 0.01)
            for depth, recall in zip(depths, recalls, strict=True)
        ]

    points = (*curve(100, 1.0, 0.8, 0.6), *curve(300, 0.3, 0.5, 0.9))
    assert permutation("calibrated", 3, points) == [3, 2, 1]
    assert permutation("calibrated", 3, points, 100) == permutation("calibrated", 3, points, 7) == [1, 2, 3]
    assert permutation("calibrated", 3, points, 180) == [1, 3, 2]  # recalls 0.72, 0.68, 0.72
    assert permutation("calibrated", 3, points, 200) == [2, 3, 1]  # recalls 0.65, 0.65, 0.75
    params = PARAMS.model_copy(update={"publish": PARAMS.publish.model_copy(update={"reorder_strategy": "calibrated"})})
    reorder = ChunkReorder(make_config(params, points))
    assert reorder.apply(["a", "b", "c"], context_tokens=100) == ["a", "b", "c"]
    assert reorder.apply(["a", "b", "c"]) == ["c", "b", "a"]
    assert reorder.apply(["a" * 30, "b" * 30, "c" * 30], count_tokens=len)[0] == "a" * 30
    flat = (*curve(100, 1.0, 1.0), *curve(300, 0.3, 0.9))
    assert "100 tokens is flat" in ChunkReorder(make_config(params, flat)).arrange(
        ["a"], context_tokens=100
    ).fallback_reason  # fmt: skip
    assert not REORDER.arrange(["a"], context_tokens=100).fallback_reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "best"}, "no strategy 'best'"),
        ({"ranking": "x"}, "ranking is 'x'"),
        ({"near_duplicates": 0}, "near_duplicates is 0"),
        ({"context_tokens": 0}, "context_tokens is 0"),
        ({"max_gap_chars": -1}, "max_gap_chars is -1"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ReorderOptions(**options)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError, match="Passage 2 has no `num_tokens`"):
        REORDER.apply([{"num_tokens": 1}, {"text": "a"}], 5)
    with pytest.raises(UserError, match=r"give `count_tokens` \(on the command line --tokenizer\) to count them"):
        REORDER.apply(["a"], 5, question="why")
    with pytest.raises(UserError, match="alone take 9 tokens of a budget of 5"):
        REORDER.apply(["a"], 5, question="q" * 9, count_tokens=len)
    with pytest.raises(UserError, match="Passage 1 has no text"):
        REORDER.apply([{"id": 1}], near_duplicates=0.5)
    with pytest.raises(UserError, match="budget_tokens is -1"):
        REORDER.apply([], -1)
    with pytest.raises(UserError, match="`char_start` of passage 1 is -3"):
        REORDER.apply([{"char_start": -3}])
    with pytest.raises(TypeError, match="unexpected keyword"):
        REORDER.apply([], near_duplicate=0.5)


def test_given_order_may_go_before_scores() -> None:
    passages = [{"score": 0.1}, {"score": 0.2}, {"score": 0.3}]
    assert REORDER.apply(passages, ranking="given", strategy="none") == passages
    assert REORDER.apply(passages, strategy="none") == passages[::-1]
    assert REORDER.apply([3, 1, 2]) == [3, 2, 1]
