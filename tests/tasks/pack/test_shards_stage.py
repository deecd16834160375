"""Promises of the packer: nothing lost or cut, rows within the target, budgets and mixes kept, the same plan every time."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.params import PackingParams
from tasks.pack.buckets import bucket_bounds
from tasks.pack.budgets import SourceShare
from tasks.pack.packer import PackingPlan, plan_rows

TARGET = 512
LENGTHS = st.lists(st.integers(1, TARGET), max_size=300)
FEW = settings(max_examples=60)
TWO = (SourceShare("books"), SourceShare("web"))


def plan(
    lengths: Any,
    sources: Any = None,
    shares: tuple[SourceShare, ...] = (SourceShare("*"),),
    documents: Any = None,
    **packing: Any,
) -> PackingPlan:
    return plan_rows(np.array(lengths, np.int64), TARGET, PackingParams(**packing), sources, shares, documents)


def pieces(*documents: int) -> tuple[np.ndarray, np.ndarray]:
    """(lengths of the pieces, length of each piece's document) of documents cut at the target."""
    cut = [[min(TARGET, n - start) for start in range(0, n, TARGET)] for n in documents]
    return np.concatenate(cut), np.repeat(documents, [len(of) for of in cut])


def used(plan: PackingPlan) -> Counter[int]:
    return Counter(plan.members.tolist())


def tokens_of(plan: PackingPlan, lengths: Any, members: Any) -> int:
    wanted = set(members)
    return sum(lengths[i] * n for i, n in used(plan).items() if i in wanted)


@FEW
@given(LENGTHS, st.integers(1, 50), st.integers(0, 3), st.booleans())
def test_no_sequence_is_lost_or_cut(lengths: list[int], window: int, seed: int, two_sources: bool) -> None:
    sources = np.arange(len(lengths)) % 2 if two_sources else None
    shares = TWO if two_sources else (SourceShare("*"),)
    made = plan(lengths, sources, shares, window_chunks=window, seed=seed)
    assert sorted(made.members.tolist()) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in made.row(r)) <= TARGET for r in range(made.num_rows))
    assert [i for r in range(made.num_rows) for i in made.row(r)] == made.members.tolist()
    assert made.num_tokens == sum(lengths)
    assert made.waste == pytest.approx(1 - sum(lengths) / (made.num_rows * TARGET) if lengths else 0)
    again = plan(lengths, sources, shares, window_chunks=window, seed=seed)
    assert (again.members.tolist(), again.row_ends.tolist()) == (made.members.tolist(), made.row_ends.tolist())
    assert sum(b.num_chunks for b in made.buckets) == len(lengths)
    assert sum(share.reached for share in made.sources) == pytest.approx(1 if lengths else 0)


def test_the_plan_is_flat_and_its_parts_are_what_a_worker_needs() -> None:
    made = plan([100, 200, 300, 400, 500, 12])
    assert made.members.dtype == made.row_ends.dtype == np.int64
    assert made.row_ends[-1] == len(made.members) == 6
    part = made.rows(1, made.num_rows)
    assert [row.tolist() for row in part] == [made.row(r).tolist() for r in range(1, made.num_rows)]


def test_the_seed_changes_the_plan_and_a_recorded_plan_stays() -> None:
    lengths = [100, 200, 300, 400, 500, 12, 60]
    assert plan(lengths, seed=1).members.tolist() != plan(lengths, seed=2).members.tolist()
    recorded = plan(lengths, seed=1)
    assert (recorded.members.tolist(), recorded.row_ends.tolist()) == ([3, 0, 5, 4, 2, 1, 6], [3, 4, 6, 7])


def test_a_sequence_beyond_the_target_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        plan([TARGET + 1])


def test_two_sources_without_saying_which_sequence_is_of_which_are_refused() -> None:
    with pytest.raises(ValueError, match="which one"):
        plan([5], None, TWO)


# -- buckets, budgets and repeats


def test_bucket_bounds_double_up_to_the_target() -> None:
    assert bucket_bounds(128, 2048) == [128, 256, 512, 1024, 2048]
    assert bucket_bounds(100, 512) == [100, 200, 400, 512]
    assert bucket_bounds(1024, 512) == [512]


@FEW
@given(LENGTHS, st.integers(0, 4), st.integers(0, 3000))
def test_repeats_and_budgets_of_buckets(lengths: list[int], repeats: int, budget: int) -> None:
    try:
        made = plan(lengths, bucket_repeats={512: repeats}, bucket_token_budgets={256: budget})
    except UserError:
        assert lengths
        assert all(n > 128 for n in lengths)
        return
    times = used(made)
    for i, length in enumerate(lengths):
        if length > 256:
            assert times[i] == repeats
        elif length > 128:
            assert times[i] <= 1
        else:
            assert times[i] == 1
    middle = [i for i, length in enumerate(lengths) if 128 < length <= 256]
    taken = tokens_of(made, lengths, middle)
    assert taken <= budget
    if taken < sum(lengths[i] for i in middle):  # as much as fits: the next one would have gone over
        assert taken > budget - 256
    by_bound = {report.upper_bound: report for report in made.buckets}
    assert list(by_bound) == [128, 256, 512]
    assert by_bound[256].num_used_tokens == taken
    assert by_bound[512].num_used == repeats * by_bound[512].num_chunks
    assert by_bound[512].repeats == (repeats if by_bound[512].num_chunks else 0)


@FEW
@given(
    st.lists(st.tuples(st.integers(1, TARGET), st.integers(0, 2)), min_size=1, max_size=200),
    st.lists(
        st.tuples(
            st.sampled_from(["*", "a", "b", "c"]),
            st.sampled_from([None, 128, 256, 512]),
            st.none() | st.integers(0, 5000),
            st.integers(0, 3),
        ),
        max_size=4,
    ),
)
def test_the_last_budget_that_matches_decides_and_is_shared_by_what_it_decides(
    documents: list[tuple[int, int]], given_budgets: list[tuple[str, int | None, int | None, int]]
) -> None:
    lengths, sources = [n for n, _ in documents], np.array([s for _, s in documents])
    names = ("a", "b", "c")
    budgets = [dict(zip(("source", "bucket", "max_tokens", "repeats"), b, strict=True)) for b in given_budgets]
    decided: dict[int, list[int]] = {}  # which budget (-1: none) decides which sequences, by the plain definition
    for i, length in enumerate(lengths):
        bucket = next(bound for bound in (128, 256, 512) if length <= bound)
        matching = [k for k, (s, b, _, _) in enumerate(given_budgets) if s in ("*", names[sources[i]]) and b in (None, bucket)]
        decided.setdefault(max(matching, default=-1), []).append(i)
    try:
        made = plan(lengths, sources, tuple(map(SourceShare, names)), budgets=budgets)
    except UserError:
        made = None
    times = used(made) if made else Counter()
    for k, members in decided.items():
        _, _, budget, repeats = given_budgets[k] if k >= 0 else ("*", None, None, 1)
        if budget is None:
            assert all(times[i] == repeats for i in members)
            continue
        taken = sum(lengths[i] * times[i] for i in members)
        assert taken <= budget
        assert all(times[i] <= repeats for i in members)
        assert max(times[i] for i in members) - min(times[i] for i in members) <= 1  # once each before any again
        if any(times[i] < repeats for i in members):
            assert taken > budget - max(lengths[i] for i in members)
    if made:
        for report in made.buckets:
            there = [i for i in range(len(lengths)) if names[sources[i]] == report.source]
            there = [i for i in there if report.upper_bound // 2 < max(lengths[i], 65) <= report.upper_bound]
            assert report.num_tokens == sum(lengths[i] for i in there)
            assert report.num_used_tokens == sum(lengths[i] * times[i] for i in there)
            assert report.repeats == (report.num_used_tokens / report.num_tokens if there else 0)


def test_budgets_win_over_the_simple_forms() -> None:
    settings: dict[str, Any] = {"bucket_repeats": {512: 5}, "bucket_token_budgets": {256: 0}}
    assert set(used(plan([300, 200, 50], budgets=[{"repeats": 2}], **settings)).values()) == {2}
    times = used(plan([300, 200, 50], budgets=[{"bucket": 256}], **settings))
    assert times == {0: 5, 1: 1, 2: 1}


def test_a_budget_bounds_the_passes_that_are_made() -> None:
    assert plan([300] * 10, budgets=[{"repeats": 10**9, "max_tokens": 9000}]).num_tokens == 9000


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"bucket_repeats": {300: 1}}, r"packing\.bucket_repeats names a bucket 300.*128, 256, 512"),
        ({"bucket_token_budgets": {512: -1}}, r"packing\.bucket_token_budgets\[512\] is -1"),
        ({"budgets": [{}, {"bucket": 1024}]}, r"packing\.budgets\[1\] names a bucket 1024.*128, 256, 512"),
        ({"budgets": [{"source": "boks"}]}, r"packing\.budgets\[0\] names a source 'boks'.*the sources are books, web"),
        ({"budgets": [{"max_tokens": 0}]}, "No training row is left"),
        ({"bucket_repeats": {128: 0}}, "No training row is left"),
        ({"recipe": "long_context_mix", "long_from": 1000}, "no document of at least 1,000 tokens, as all 18 tokens"),
        ({"recipe": "long_context_mix"}, "no document of at least 256 tokens"),
        ({"recipe": "long_context_mix", "long_from": 2}, "no document of fewer than 2 tokens, as all 18 tokens"),
    ],
)
def test_an_impossible_setting_is_one_sentence(setting: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        plan([5, 7, 6], np.array([0, 1, 0]), TWO, **setting)
    assert str(error.value).count(". ") == 0


def test_a_piece_is_in_the_bucket_of_its_document_and_the_last_bucket_has_all_longer_documents() -> None:
    lengths, documents = pieces(TARGET + 5, 10 * TARGET + 100, 300, 100)
    by_bound = {report.upper_bound: report for report in plan(lengths, documents=documents).buckets}
    assert {bound: report.num_tokens for bound, report in by_bound.items()} == {128: 100, 256: 0, 512: 11 * TARGET + 405}
    assert sum(plan(lengths, documents=documents, bucket_token_budgets={128: 0}).members == len(lengths) - 1) == 0
    assert plan(lengths, documents=documents, bucket_repeats={128: 0}).num_tokens == 11 * TARGET + 405


# -- mixes

MIXED = st.lists(st.tuples(st.integers(1, TARGET), st.integers(0, 2)), min_size=1, max_size=300)


@FEW
@given(MIXED, st.tuples(*[st.floats(0.01, 10)] * 3), st.tuples(*[st.integers(1, 4)] * 3), st.integers(0, 3))
def test_source_weights_give_the_largest_mix_with_those_shares(
    documents: list[tuple[int, int]], weights: tuple[float, ...], repeats: tuple[int, ...], seed: int
) -> None:
    lengths, sources = [n for n, _ in documents], np.array([s for _, s in documents])
    shares = tuple(SourceShare(n, w, r) for n, w, r in zip("abc", weights, repeats, strict=True))
    there = [sum(n for n, s in documents if s == k) for k in range(3)]
    if not all(there):
        with pytest.raises(UserError, match="has a weight but nothing to pack"):
            plan(lengths, sources, shares, seed=seed)
        return
    part = [w / sum(weights) for w in weights]
    largest = min(n * r / p for n, r, p in zip(there, repeats, part, strict=True))
    try:
        made = plan(lengths, sources, shares, seed=seed)
    except UserError:  # a source's part is less than half a sequence
        made = None
    if made is None:
        assert min(part) * largest <= max(lengths) / 2 + 2
        return
    for k in range(3):
        members = [i for i in range(len(lengths)) if sources[i] == k]
        taken = tokens_of(made, lengths, members)
        assert abs(taken - part[k] * largest) <= max(lengths[i] for i in members) / 2 + 2  # whole sequences, rounding
        times = [used(made)[i] for i in members]
        assert max(times) <= repeats[k]
        assert max(times) - min(times) <= 1
        assert made.sources[k].wanted == pytest.approx(part[k])
        assert made.sources[k].reached == pytest.approx(taken / made.num_tokens)


def test_weights_are_reached_closely_on_a_corpus_of_some_size() -> None:
    rng = np.random.default_rng(0)
    lengths, sources = rng.integers(1, TARGET, 20_000), rng.integers(0, 2, 20_000)
    made = plan(lengths, sources, (SourceShare("books", 3, 2), SourceShare("web", 1)))
    books = next(share for share in made.sources if share.name == "books")
    assert books.wanted == 0.75
    assert books.reached == pytest.approx(0.75, abs=1e-3)
    assert max(used(made).values()) == 2  # books, and all of them, as they are what is scarce
    assert {n for i, n in used(made).items() if sources[i] == 0} == {2}


@pytest.mark.parametrize("long_share", [0.6, 0.2])
def test_the_long_context_mix_has_its_share_of_long_tokens_and_repeats_nothing(long_share: float) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, TARGET, 20_000)
    made = plan(lengths, recipe="long_context_mix", long_share=long_share, long_from=300)
    long = tokens_of(made, lengths, np.flatnonzero(lengths >= 300))
    assert long / made.num_tokens == pytest.approx(long_share, abs=1e-3)
    assert max(used(made).values()) == 1
    there = int(lengths[lengths >= 300].sum()), int(lengths[lengths < 300].sum())
    assert made.num_tokens == pytest.approx(min(there[0] / long_share, there[1] / (1 - long_share)), rel=1e-3)
    assert [(s.name, s.wanted) for s in made.by_length] == [("long", long_share), ("short", 1 - long_share)]
    assert made.by_length[0].reached == pytest.approx(long_share, abs=1e-3)


def test_the_pieces_of_a_book_are_long_the_short_last_one_too() -> None:
    rng = np.random.default_rng(0)
    books, pages = rng.integers(20 * TARGET, 21 * TARGET, 12), rng.integers(20, 200, 3000)
    lengths, documents = pieces(*books, *pages)
    made = plan(lengths, documents=documents, recipe="long_context_mix", long_share=0.5, long_from=1000)
    long = tokens_of(made, lengths, np.flatnonzero(documents >= 1000))
    assert long == books.sum()  # books are scarce: no piece of them is left out
    assert long / made.num_tokens == pytest.approx(0.5, abs=1e-3)
    assert made.by_length[0].reached == pytest.approx(0.5, abs=1e-3)


def test_books_alone_are_no_mix_and_nothing_is_dropped_without_a_word() -> None:
    lengths, documents = pieces(*[20 * TARGET + 200] * 12)
    with pytest.raises(UserError, match=r"no document of fewer than 256 tokens, as all 125,280 tokens are in longer ones"):
        plan(lengths, documents=documents, recipe="long_context_mix")


def test_a_side_that_rounding_would_leave_empty_is_refused_with_the_figures() -> None:
    with pytest.raises(
        UserError, match=r"would leave no long document: from 500 tokens of long and 60 of short documents"
    ) as error:
        plan([500, 30, 30], recipe="long_context_mix", long_share=0.6)
    assert str(error.value).count(". ") == 0


def test_much_that_is_left_out_is_told_with_the_figures() -> None:
    lengths = [400] * 100 + [100] * 40
    (said,) = plan(lengths, recipe="long_context_mix", long_share=0.6).warnings
    assert "leaves out 77.3% of the training tokens (34,000 of 44,000: 34,000 by the mix)" in said
    (said,) = plan(lengths, bucket_token_budgets={512: 20_000}).warnings
    assert "leaves out 45.5% of the training tokens (20,000 of 44,000: 20,000 by the budgets)" in said
    assert plan(lengths, bucket_token_budgets={512: 20_000}, warn_dropped_share=0.5).warnings == ()
    assert plan(lengths, bucket_token_budgets={512: 32_000}).warnings == ()  # 18 %
    assert plan(lengths).warnings == ()


def test_a_share_that_few_large_pieces_miss_is_told() -> None:
    made = plan([400, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20], recipe="long_context_mix", long_share=0.5)
    assert [said[:40] for said in made.warnings if said.startswith("the mix")] == [
        "the mix has 64.5% of its tokens from lon",
        "the mix has 35.5% of its tokens from sho",
    ]


def test_long_from_is_half_the_target_unless_given() -> None:
    lengths = [TARGET // 2] * 60 + [TARGET // 2 - 1] * 200
    made = plan(lengths, recipe="long_context_mix")
    assert tokens_of(made, lengths, range(60)) == 60 * TARGET // 2  # all the long ones, and two thirds as many short
    assert made.num_tokens == pytest.approx(60 * TARGET // 2 / 0.6, rel=0.01)


def test_weights_and_long_context_mix_hold_together() -> None:
    """Books are long, web pages short: equal weights and 60 % long need web pages to give a fifth of theirs as long."""
    rng = np.random.default_rng(0)
    books, web = rng.integers(256, TARGET, 3000), rng.integers(1, TARGET, 9000)
    lengths = np.concatenate([books, web])
    sources = np.repeat([0, 1], [len(books), len(web)])
    made = plan(lengths, sources, (SourceShare("books", 1), SourceShare("web", 1)), recipe="long_context_mix")
    assert [share.reached for share in made.sources] == pytest.approx([0.5, 0.5], abs=2e-3)
    assert made.by_length[0].reached == pytest.approx(0.6, abs=2e-3)
    short = np.flatnonzero(lengths < 256)
    assert made.num_tokens == pytest.approx(lengths[short].sum() / 0.4, rel=2e-3)  # the short pages are scarce: all are used


def test_weights_and_long_context_mix_that_exclude_each_other_are_one_sentence() -> None:
    lengths, sources = [400] * 50 + [40] * 500, np.repeat([0, 1], [50, 500])
    with pytest.raises(UserError, match="No mix has both the sources' weights"):
        plan(lengths, sources, (SourceShare("books", 1), SourceShare("web", 3)), recipe="long_context_mix")


def test_budgets_are_applied_before_the_weights() -> None:
    lengths, sources = [100] * 400, np.repeat([0, 1], 200)
    shares = (SourceShare("books", 1), SourceShare("web", 1))
    made = plan(lengths, sources, shares, budgets=[{"source": "books", "max_tokens": 5000}])
    assert [tokens_of(made, lengths, range(200)), tokens_of(made, lengths, range(200, 400))] == [5000, 5000]
