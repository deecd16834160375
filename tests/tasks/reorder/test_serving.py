"""What a release's advice says about passages reaches the reorder config and its readers, old ones too."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from data_schemas.params import PipelineParams
from data_schemas.reorder import ReorderDecision
from data_schemas.serving_advice import ADVICE_FILE_NAME, ServingAdvice, ServingWay, WayComparison
from tasks.publish.reorder_config import make_config
from tasks.reorder import ChunkReorder
from tasks.reorder.config import to_json
from tests.tasks.reorder.advice_example import advice
from tests.tasks.reorder.test_schema import SCHEMA, plain_reader

PARAMS = PipelineParams.model_validate(
    {"run_name": "r", "corpus": {"sources": ["books"]}, "model": {"base": "demo", "target_length": 1024}}
)
NAME = "chunks/fine_tuned/{}/{}"
OTHER_SIZES = (NAME.format(15, "none"), NAME.format(15, "reverse_rank"))
OTHER_ORDER = NAME.format(30, "none")
VALIDATED = ReorderDecision(
    strategy="important_first_last", is_distinguishable=True, measure="score", confidence=0.95, reason="It won."
)


def written(folder: Path, given: ServingAdvice | None) -> Path:
    (folder / "chunk_reorder.json").write_text(to_json(make_config(PARAMS, [], VALIDATED, given)))
    if given is not None:
        (folder / ADVICE_FILE_NAME).write_text(given.model_dump_json())
    return folder


def test_size_and_order_that_won_are_in_the_config_with_their_evidence() -> None:
    config = make_config(PARAMS, [], VALIDATED, advice(worse=(*OTHER_SIZES, OTHER_ORDER)))
    assert (config.chunking.max_tokens, config.chunking.strategy, config.strategy) == (30, "semantic", "reverse_rank")
    assert config.validated is None  # its evidence is in the advice
    assert config.golden["3"] == (3, 2, 1)
    assert "k = 3, at most 90 tokens of passages, found by bm25, in the order reverse_rank, for local facts" in config.note
    assert "this size was shown to win, and this order was. This order takes the place of important_first_last." in config.note


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ((), "no size was shown to win, and no order was."),
        ((OTHER_SIZES[0], OTHER_ORDER), "no size was shown to win, and this order was."),
        (OTHER_SIZES, "this size was shown to win, and no order was."),
    ],
)
def test_what_was_not_shown_to_win_is_said_and_keeps_the_validated_order(worse: tuple[str, ...], said: str) -> None:
    config = make_config(PARAMS, [], VALIDATED, advice(worse=worse))
    assert said in config.note
    order_won = OTHER_ORDER in worse
    assert config.strategy == ("reverse_rank" if order_won else "important_first_last")
    assert config.validated == (None if order_won else VALIDATED)


def comparison(kind: str, way: str, against: str, p_holm: float) -> WayComparison:
    given = {"kind": kind, "way": way, "against": against, "difference": -0.3, "low": -0.5, "high": -0.1, "cost_ratio": 1}
    return WayComparison.model_validate(given | {"p_holm": p_holm})


BEST = NAME.format(30, "reverse_rank")


@pytest.mark.parametrize(
    "comparisons",
    [
        [comparison("spread", OTHER_ORDER, BEST, 0.001)],  # not advised for this kind
        [comparison("local", OTHER_ORDER, BEST, 0.03)],  # one of two kinds
        [comparison("local", OTHER_ORDER, BEST, 0.001), comparison("spread", BEST, OTHER_ORDER, 0.04)],  # lost on the other
    ],
)
def test_an_order_wins_only_for_its_kinds_and_where_it_loses_on_none(comparisons: list[WayComparison]) -> None:
    given = advice().model_copy(update={"comparisons": tuple(comparisons)})
    config = make_config(PARAMS, [], VALIDATED, given)
    assert "and no order was." in config.note
    assert (config.strategy, config.validated) == ("important_first_last", VALIDATED)
    won = given.model_copy(update={"comparisons": (comparison("local", OTHER_ORDER, BEST, 0.02),)})
    assert make_config(PARAMS, [], VALIDATED, won).strategy == "reverse_rank"


def test_an_order_that_won_with_the_base_says_nothing_about_the_release() -> None:
    best = NAME.format(30, "reverse_rank").replace("fine_tuned", "base")
    others = tuple(name.replace("fine_tuned", "base") for name in (*OTHER_SIZES, OTHER_ORDER))
    config = make_config(PARAMS, [], VALIDATED, advice(best, others, arm="base"))
    assert (config.strategy, config.validated, config.chunking.max_tokens) == ("important_first_last", VALIDATED, 30)
    assert "advises, with the base model, passages of 30 tokens" in config.note


def test_where_no_passages_are_advised_that_is_said() -> None:
    config = make_config(PARAMS, [], VALIDATED, advice("full/fine_tuned"))
    assert config.chunking == make_config(PARAMS, []).chunking
    assert "advises no passages for any kind of question" in config.note


def test_a_reader_that_knows_no_advice_goes_on() -> None:
    """Fields, schema version and rules are those of a config without an advice."""
    config = make_config(PARAMS, [], VALIDATED, advice(worse=(*OTHER_SIZES, OTHER_ORDER)))
    content = json.loads(to_json(config))
    before = json.loads(to_json(make_config(PARAMS, [], VALIDATED)))
    assert content.keys() == before.keys()
    assert content["schema_version"] == before["schema_version"] == 1
    jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [plain_reader(content, n) for n in range(1, 11)] == list(content["golden"].values())


def test_a_reader_is_told_how_to_serve(tmp_path: Path) -> None:
    reorder = ChunkReorder.load(written(tmp_path, advice(worse=(*OTHER_SIZES, OTHER_ORDER))))
    how = reorder.how_to_serve()
    assert (how.way, how.arm, how.retriever, how.k, how.budget_tokens) == ("chunks", "fine_tuned", "bm25", 3, 90)
    assert (how.chunking.max_tokens, how.order, how.window, how.is_measured) == (30, "reverse_rank", 128, True)
    assert reorder.apply(["a", "b", "c"]) == ["c", "b", "a"]
    spread = reorder.how_to_serve("spread")
    assert (spread.way, spread.window, spread.reason) == ("full", 512, "spread: full/fine_tuned.")
    assert spread.order == "reverse_rank"
    unmeasured = reorder.how_to_serve("given")
    assert (unmeasured.way, unmeasured.is_measured, unmeasured.k) == ("chunks", False, None)


def test_passages_are_served_in_the_order_they_were_measured_in(tmp_path: Path) -> None:
    """The base's best order, though the release's own, validated with the fine-tuned model, is another one."""
    best = BEST.replace("fine_tuned", "base")
    reorder = ChunkReorder.load(written(tmp_path, advice(best, (OTHER_ORDER.replace("fine_tuned", "base"),), arm="base")))
    how = reorder.how_to_serve("local")
    assert (how.arm, how.order, reorder.config.strategy) == ("base", "reverse_rank", "important_first_last")
    assert reorder.apply(["a", "b", "c"], strategy=how.order) == ["c", "b", "a"]


def test_an_advice_on_given_questions_and_one_told_by_lengths_are_followed(tmp_path: Path) -> None:
    measured = advice(worse=(*OTHER_SIZES, OTHER_ORDER))
    given = measured.model_copy(
        update={
            "questions_from": "qa_file",
            "advice": (measured.advice[0].model_copy(update={"kind": "given"}),),
            "results": tuple(one.model_copy(update={"kind": "given"}) for one in measured.results if one.kind == "local"),
            "comparisons": tuple(one.model_copy(update={"kind": "given"}) for one in measured.comparisons),
        }
    )
    how = ChunkReorder.load(written(tmp_path, given)).how_to_serve()
    assert (how.way, how.k, how.is_measured) == ("chunks", 3, True)

    base = ServingWay(name="full/base", way="full", arm="base", window=128)
    told = given.model_copy(
        update={"ways": (base,), "results": (), "comparisons": (), "advice": (), "overall": "Nothing is long."}
    )
    how = ChunkReorder.load(written(tmp_path, told)).how_to_serve()
    assert (how.way, how.arm, how.window, how.reason, how.is_measured) == ("full", "base", 128, "Nothing is long.", False)


def test_a_route_says_when_to_ask_about_the_whole_document(tmp_path: Path) -> None:
    how = ChunkReorder.load(written(tmp_path, advice("route/fine_tuned"))).how_to_serve("local")
    assert (how.way, how.k, how.threshold, how.window, how.answer_tokens) == ("route", 3, -0.5, 512, 7)
    assert how.asks_long(-0.6)
    assert not how.asks_long(-0.4)


def test_without_an_advice_and_with_a_broken_one_the_config_serves(tmp_path: Path) -> None:
    reorder = ChunkReorder.load(written(tmp_path, None))
    how = reorder.how_to_serve("local")
    assert (how.way, how.arm, how.retriever, how.k, how.is_measured) == ("chunks", None, None, None, False)
    assert how.chunking == reorder.config.chunking
    assert "has no serving_advice.json" in how.reason
    unknown_way = advice().model_copy(update={"ways": advice().ways[:2]})
    for broken in ("{", '{"schema_version": 2}', unknown_way.model_dump_json()):
        (tmp_path / ADVICE_FILE_NAME).write_text(broken)
        with pytest.warns(UserWarning, match="The release is used without its advice|the release is used without it"):
            assert ChunkReorder.load(tmp_path / "chunk_reorder.json").how_to_serve() == reorder.how_to_serve()
