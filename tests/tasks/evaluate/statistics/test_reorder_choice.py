"""Choosing the default order from measurements: it finds a real winner, and does not invent one."""

import numpy as np
import pyarrow as pa
import pytest

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.reorder import ReorderConfig
from tasks.evaluate.statistics.reorder_choice import choose_default
from tasks.publish.reorder_config import make_config
from tasks.reorder.config import to_json

STRATEGIES = ("important_first_last", "reverse_rank", "calibrated", "none", "random")


def rows(rates: dict[str, float], num_samples: int = 80, lengths: tuple[int, ...] = (1024,), seed: int = 0) -> list[dict]:
    """Right with the given probability, for samples of unequal difficulty shared by all orders."""
    generator = np.random.default_rng(seed)
    result = []
    for sample in range(num_samples):
        for length in lengths:
            difficulty = generator.uniform()
            for strategy in STRATEGIES:
                score = float(difficulty < rates.get(strategy, 0.5))
                logprob = -5 * difficulty + 2 * rates.get(strategy, 0.5) + generator.normal(0, 0.1)
                result.append({"sample": sample, "strategy": strategy, "length": length, "score": score, "logprob": logprob})
    return result


def test_a_real_winner_is_found_by_mcnemar_with_its_interval() -> None:
    decision = choose_default(rows({"reverse_rank": 0.8, "calibrated": 0.65}))
    assert (decision.strategy, decision.is_distinguishable, decision.measure) == ("reverse_rank", True, "score")
    (found,) = [r for r in decision.table if (r.strategy, r.against, r.length) == ("reverse_rank", "none", None)]
    assert found.test == "mcnemar"
    assert found.num_samples == 80
    by_sample = {(r["strategy"], r["sample"]): r["score"] for r in rows({"reverse_rank": 0.8, "calibrated": 0.65})}
    differences = [by_sample["reverse_rank", i] - by_sample["none", i] for i in range(80)]
    assert found.difference == pytest.approx(np.mean(differences))
    assert 0 < found.low < found.difference < found.high < 1
    assert found.p_value == pytest.approx(2 * 0.5 ** sum(differences))  # all discordant pairs on one side
    assert found.p_value < found.p_holm < 0.05


def test_nothing_wins_means_first_last_marked_as_such() -> None:
    decision = choose_default(rows({}))
    assert (decision.strategy, decision.is_distinguishable) == ("important_first_last", False)
    assert "not distinguishable" in decision.reason
    assert decision.measure == "score"  # many questions are answered, whatever the order


def test_models_too_small_to_answer_are_compared_by_log_probability() -> None:
    right = [r | {"score": float(r["sample"] < 7 and r["score"])} for r in rows({"calibrated": 1.0}, num_samples=30)]
    decision = choose_default(right)
    assert (decision.strategy, decision.measure) == ("calibrated", "logprob"), "seven answers cannot reach Holm's 5 %"
    (found,) = [r for r in decision.table if (r.strategy, r.against) == ("calibrated", "none")]
    by_sample = {(r["strategy"], r["sample"]): r["logprob"] for r in right}
    differences = np.array([by_sample["calibrated", i] - by_sample["none", i] for i in range(30)])
    half = 2.045 * differences.std(ddof=1) / 30**0.5  # Student's t with 29 degrees of freedom
    assert (found.low, found.high) == pytest.approx((differences.mean() - half, differences.mean() + half), abs=1e-3)
    assert "nats" in decision.reason


def test_intervals_stay_honest_where_no_sample_differs_and_where_there_is_one() -> None:
    alike = [r for r in choose_default(rows({}, num_samples=20)).table if r.against == "none" and r.strategy == "random"]
    assert alike[0].difference == 0
    assert alike[0].low == pytest.approx(-0.161, abs=2e-3)  # Tango's: z^2 / (n + z^2) for 20 pairs, none discordant
    one = choose_default(rows({}, num_samples=1), measure="logprob").table[1]
    assert (one.low, one.high) == (None, None)


def test_chance_alone_wins_no_more_often_than_declared() -> None:
    wins = 0
    for seed in range(60):
        generator = np.random.default_rng(1000 + seed)
        noise = [r | {"score": float(generator.uniform() < 0.5)} for r in rows({}, num_samples=30, seed=seed)]
        wins += choose_default(noise, confidence=0.9).is_distinguishable
    assert wins <= 12  # at most 6 expected; more than 12 has a chance of 0.4 %


def test_the_order_none_is_kept_where_first_last_is_worse() -> None:
    decision = choose_default(rows({"important_first_last": 0.1, "reverse_rank": 0.2, "calibrated": 0.4}))
    assert (decision.strategy, decision.is_distinguishable) == ("none", True)


def test_several_lengths_are_one_observation_a_sample() -> None:
    decision = choose_default(rows({"calibrated": 0.7}, num_samples=40, lengths=(512, 1024)))
    assert decision.strategy == "calibrated"
    pooled = [r for r in decision.table if r.length is None and r.strategy == "calibrated"]
    assert [(r.against, r.test, r.num_samples) for r in pooled] == [("none", "sign_flip", 40), ("random", "sign_flip", 40)]
    single = [r for r in decision.table if r.length == 512]
    assert {(r.strategy, r.against) for r in single} == {
        (s, against) for against in ("none", "random") for s in STRATEGIES if s != against
    }
    assert all(r.p_holm >= r.p_value for r in decision.table)


def test_several_random_orders_of_a_sample_are_averaged() -> None:
    once = rows({"important_first_last": 0.9}, num_samples=20)
    twice = [*once, *(r | {"score": 1 - r["score"]} for r in once if r["strategy"] == "random")]
    table = choose_default(twice).table
    (random,) = [r for r in table if (r.strategy, r.against) == ("random", "none")]
    assert (random.mean, random.num_samples, random.test) == (0.5, 20, "sign_flip")


def test_it_is_the_same_from_an_arrow_table_in_any_order() -> None:
    given = rows({"calibrated": 0.6}, lengths=(512, 1024))
    table = pa.Table.from_pylist(given[::-1])
    assert choose_default(table) == choose_default(given)


def test_rows_that_do_not_pair_are_refused() -> None:
    given = rows({}, num_samples=3)
    with pytest.raises(UserError, match="Sample 2 at 1024 tokens was not measured with both random and none"):
        choose_default(given[:-1])
    with pytest.raises(UserError, match="No row has strategy `none`"):
        choose_default([r for r in given if r["strategy"] != "none"])
    with pytest.raises(UserError, match="'best'"):
        choose_default([given[0] | {"strategy": "best"}])
    with pytest.raises(UserError, match="no finite score"):
        choose_default([*given, given[0] | {"score": float("nan")}])


def test_the_config_records_the_decision_and_follows_it() -> None:
    params = PipelineParams.model_validate(
        {"run_name": "r", "corpus": {"sources": ["books"]}, "model": {"base": "demo", "target_length": 1024}}
    )
    decision = choose_default(rows({"reverse_rank": 0.9}))
    config = make_config(params, [], decision)
    assert config.strategy == "reverse_rank"
    assert config.golden["3"] == (3, 2, 1)
    assert "important_first_last was requested, but" in config.note
    assert ReorderConfig.model_validate_json(to_json(config)) == config
    assert make_config(params, []).validated is None
