"""Reordering: every strategy gives a permutation, ties stay stable, and a bad file is named by its line."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.reorder import RecallPoint, ReorderConfig
from tasks.publish.reorder_config import make_config
from tasks.reorder import ChunkReorder, arrange_file, permutation
from tasks.reorder.config import to_json
from tasks.reorder.recall_curve import why_not_calibrated

STRATEGIES = ("important_first_last", "reverse_rank", "calibrated", "none")


def point(depth: float, recall: float, half_width: float = 0.01, length: int = 1024) -> RecallPoint:
    return RecallPoint(length=length, depth=depth, n=100, recall=recall, low=recall - half_width, high=recall + half_width)


CURVE = (point(0.0, 0.5), point(0.5, 0.2), point(1.0, 0.9))

curves = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.2), st.sampled_from([512, 1024])), max_size=12
).map(lambda rows: tuple(point(*row) for row in rows))


def config(strategy: str = "important_first_last", curve: tuple[RecallPoint, ...] = ()) -> ReorderConfig:
    params = PipelineParams.model_validate(
        {"run_name": "r", "corpus": {"sources": ["books"]}, "model": {"base": "demo", "target_length": 1024}}
        | {"publish": {"reorder_strategy": strategy}}
    )
    return make_config(params, curve)


def test_the_order_of_five_is_as_published() -> None:
    assert permutation("important_first_last", 5) == [1, 3, 5, 4, 2]
    assert permutation("important_first_last", 6) == [1, 3, 5, 6, 4, 2]
    assert permutation("reverse_rank", 4) == [4, 3, 2, 1]
    assert permutation("none", 3) == [1, 2, 3]


def test_calibrated_fills_the_best_measured_places_first() -> None:
    # interpolated recall at depths 0, 1/4, 1/2, 3/4, 1: 0.5, 0.35, 0.2, 0.55, 0.9
    assert permutation("calibrated", 5, CURVE) == [3, 4, 5, 2, 1]


def test_calibrated_uses_the_longest_length_only() -> None:
    short = tuple(point(depth, 1 - depth, length=256) for depth in (0.0, 1.0))
    assert permutation("calibrated", 5, short + CURVE) == permutation("calibrated", 5, CURVE)


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        ((), "No recall"),
        ((point(0.0, 0.5), point(1.0, 0.6, half_width=0.1)), "flat"),
        ((point(0.0, 0.5),), "two or more depths"),
        ((point(0.0, 0.5), point(0.0, 0.9)), "two or more depths"),
    ],
)
def test_calibrated_falls_back_and_says_why(curve: tuple[RecallPoint, ...], reason: str) -> None:
    reorder = ChunkReorder(config("calibrated", curve))
    assert reason in reorder.fallback_reason
    assert reason in reorder.config.note
    assert reorder.permutation(7) == permutation("important_first_last", 7)


@given(st.sampled_from(STRATEGIES), st.integers(0, 60), curves)
def test_every_strategy_gives_a_permutation(strategy: str, n: int, curve: tuple[RecallPoint, ...]) -> None:
    ranks = permutation(strategy, n, curve)
    assert sorted(ranks) == list(range(1, n + 1))
    assert ranks == permutation(strategy, n, tuple(reversed(curve)))


@given(st.integers(2, 40), curves)
def test_a_calibrated_place_is_never_worse_than_the_next_ranks_place(n: int, curve: tuple[RecallPoint, ...]) -> None:
    if why_not_calibrated(curve):
        return
    points = sorted((p for p in curve if p.length == max(q.length for q in curve)), key=lambda p: p.depth)
    import numpy as np

    recall = np.interp(np.linspace(0, 1, n), [p.depth for p in points], [p.recall for p in points])
    ranks = permutation("calibrated", n, curve)
    by_rank = [recall[ranks.index(rank)] for rank in range(1, n + 1)]
    assert all(better >= worse - 1e-6 for better, worse in itertools.pairwise(by_rank))


@given(st.lists(st.integers(-3, 3), max_size=20))
def test_scores_rank_descending_and_ties_keep_their_order(scores: list[int]) -> None:
    passages = [{"id": i, "score": score} for i, score in enumerate(scores)]
    ordered = ChunkReorder(config("none")).apply(passages)
    assert [p["id"] for p in ordered] == [i for _, i in sorted((-score, i) for i, score in enumerate(scores))]


@given(st.lists(st.text(max_size=5), max_size=20), st.sampled_from(STRATEGIES))
def test_passages_without_scores_come_best_first(passages: list[str], strategy: str) -> None:
    ordered = ChunkReorder(config(strategy, CURVE)).apply(passages)
    assert ordered == [passages[rank - 1] for rank in permutation(strategy, len(passages), CURVE)]


def test_some_scores_or_a_strange_one_is_refused() -> None:
    reorder = ChunkReorder(config())
    with pytest.raises(UserError, match="Passage 2 has no score"):
        reorder.apply([{"score": 1.0}, {"text": "a"}])
    for strange in (float("nan"), "0.5", True):
        with pytest.raises(UserError, match="score of passage 1"):
            reorder.apply([{"score": strange}])


def test_passages_that_are_ranked_as_given_may_have_any_score() -> None:
    passages = [{"score": "high"}, {"score": None}, {"score": 0.5}]
    assert ChunkReorder(config("none")).apply(passages, ranking="given") == passages


def test_a_position_that_the_framework_did_not_find_is_no_position() -> None:
    passages = [{"text": "a", "source": "x", "start_index": -1}, {"text": "b", "source": "x", "start_index": 0}]
    assert ChunkReorder(config("none")).apply(passages) == passages
    with pytest.raises(UserError, match="`char_start` of passage 1 is -1"):
        ChunkReorder(config("none")).apply([{"text": "a", "char_start": -1}])


def test_pages_of_a_document_are_not_neighbours_by_what_is_counted_from_each_page() -> None:
    def page(number: int, start: int) -> dict[str, Any]:
        return {"text": 500 * "x", "source": "a.pdf", "page": number, "start_index": start}

    passages = [page(1, 0), page(7, 500), page(1, 500), page(9, 0)]
    assert ChunkReorder(config("none")).arrange(passages, keep_adjacent=True).groups == ((1, 3), (2,), (4,))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_written_config_reads_back_with_its_golden_permutations(tmp_path: Path, strategy: str) -> None:
    (tmp_path / "chunk_reorder.json").write_text(to_json(config(strategy, CURVE)))
    for source in (tmp_path, tmp_path / "chunk_reorder.json", str(tmp_path)):
        reorder = ChunkReorder.load(source)
        assert reorder.config == config(strategy, CURVE)
        assert {n: list(ranks) for n, ranks in reorder.config.golden.items()} == {
            str(n): reorder.permutation(n) for n in range(1, 11)
        }
    assert set(reorder.config.golden_by_strategy) == {"important_first_last", "reverse_rank", "none"}


def test_a_golden_entry_that_is_no_permutation_is_refused() -> None:
    content = config().model_dump()
    content["golden"]["3"] = (1, 1, 2)
    with pytest.raises(ValidationError, match="not a permutation"):
        ReorderConfig.model_validate(content)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"strategy": "best"}', b"\xff"])
def test_a_wrong_config_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "chunk_reorder.json").write_bytes(content)
    with pytest.raises(UserError, match="is not a reorder config"):
        ChunkReorder.load(tmp_path)


def test_a_folder_without_a_config_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot read the reorder config"):
        ChunkReorder.load(tmp_path)


def test_a_jsonl_file_is_reordered_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(to_json(config()))
    rows = [{"text": "é", "score": 0.1, "id": 7}, {"text": "b", "score": 0.9}, {"text": "c", "score": 0.5}]
    (tmp_path / "p.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8-sig")
    assert list(arrange_file(tmp_path / "config.json", tmp_path / "p.jsonl").parts()) == [rows[1], rows[0], rows[2]]
    (tmp_path / "p.jsonl").write_text('"best"\n"second"\n"third"\n')
    assert list(arrange_file(tmp_path / "config.json", tmp_path / "p.jsonl").parts()) == ["best", "third", "second"]


@pytest.mark.parametrize("bad", [b"{", b"7", b"\xff\xfe", b'{"score": NaN}', b'{"score": "high"}', b"[" * 100_000])
def test_a_bad_line_is_named(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "config.json").write_text(to_json(config()))
    (tmp_path / "p.jsonl").write_bytes(b'{"text": "fine"}\n\n' + bad + b"\n")
    with pytest.raises(UserError, match=r"p\.jsonl, line 3"):
        arrange_file(tmp_path / "config.json", tmp_path / "p.jsonl")


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, tasks.reorder; "
        "print(sorted({'torch', 'ray', 'transformers', 'prefect', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
