"""Distances are not taken for scores without a word, and a missing score keeps the given order."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import UserError
from flows.cli import main
from tasks.reorder.config import to_json
from tests.tasks.reorder.test_options import REORDER

RISING = "The scores rise from the first passage to the last"


def of(values: list[Any], name: str = "score") -> list[dict[str, Any]]:
    return [{"id": i, "text": str(i), name: value} for i, value in enumerate(values)]


def ids(passages: list[Any]) -> list[int]:
    return [passage["id"] for passage in passages]


def test_scores_that_rise_where_the_best_comes_first_are_said() -> None:
    with pytest.warns(UserWarning, match=RISING) as said:
        arranged = REORDER.arrange(of([0.1, 0.2, 0.2, 0.9]), strategy="none")
    assert len(said) == 1
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match=RISING) as said:
        REORDER.apply(of([0.1, 0.2, 0.9]))
    assert said[0].filename == __file__
    assert ids(arranged.passages) == [3, 1, 2, 0]
    assert arranged.note == str(said[0].message)
    assert "set ranking to `distance`" in arranged.note


@pytest.mark.parametrize("values", [[0.9, 0.2, 0.1], [0.1, 0.9, 0.2], [0.1, 0.9], [0.5, 0.5, 0.5], [0.5], []])
def test_other_orders_are_not_doubtful(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert REORDER.arrange(of(values)).note == ""
        assert REORDER.arrange(of(sorted(values)), ranking="distance").note == ""
        assert REORDER.arrange(of(sorted(values)), ranking="given").note == ""


@given(st.lists(st.integers(0, 5), max_size=12), st.sampled_from(["score", "distance"]))
def test_the_lowest_distance_ranks_first(values: list[int], name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ordered = REORDER.apply(of(values, name), ranking="distance", strategy="none")
    assert ids(ordered) == [i for _, i in sorted((value, i) for i, value in enumerate(values))]


def test_falling_distances_are_said_too() -> None:
    with pytest.warns(UserWarning, match=r"The distances fall .* if these are scores set ranking to `score`"):
        assert ids(REORDER.apply(of([0.9, 0.5, 0.1]), ranking="distance", strategy="none")) == [2, 1, 0]


def test_the_best_of_distances_stands_first_and_the_second_last() -> None:
    assert ids(REORDER.apply(of([0.1, 0.2, 0.3, 0.4, 0.5], "distance"), ranking="distance")) == [0, 2, 4, 3, 1]


def test_a_score_of_none_keeps_the_given_order_and_is_said() -> None:
    with pytest.warns(UserWarning, match="Passage 2 has no score but others have, so all passages keep the given order"):
        assert ids(REORDER.apply(of([0.1, None, 0.9]), strategy="none")) == [0, 1, 2]
    assert ids(REORDER.apply(of([None, None]), strategy="none")) == [0, 1]
    with pytest.raises(UserError, match="Passage 2 has no distance but others have"):
        REORDER.apply([{"distance": 0.1}, {"text": "a"}], ranking="distance")
    with pytest.raises(UserError, match="The distance of passage 1 is 'near'"):
        REORDER.apply([{"distance": "near"}], ranking="distance")


def test_the_command_says_it_and_takes_distances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, passages = tmp_path / "chunk_reorder.json", tmp_path / "passages.jsonl"
    config.write_text(to_json(REORDER.config))
    passages.write_text("\n".join(json.dumps(passage) for passage in of([0.1, 0.2, 0.3])))
    for more, order in (([], [2, 0, 1]), (["--ranking", "distance"], [0, 2, 1])):
        monkeypatch.setattr("sys.argv", ["ropeway", "reorder", str(passages), "--config", str(config), *more])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code in (0, None)
        assert ids([json.loads(line) for line in printed.out.splitlines()]) == order
        assert (RISING in printed.err) == (not more)
