"""Rows dealt to ranks: evenly many, evenly costly, the same on every rank."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.params import PackingParams
from ray_jobs.finetune.training.balance import attention_cost, deal, group_similar, imbalance
from tasks.pack.packer import plan_rows
from tasks.pack.reading import sample_order

FEW = settings(max_examples=80)
COSTS = st.lists(st.integers(1, 10**6), min_size=1, max_size=24)


@pytest.fixture(scope="module")
def costs() -> np.ndarray:
    """Of the packed rows of 50 000 documents of realistic lengths, at a target of 32k."""
    lengths = np.clip(np.random.default_rng(0).lognormal(7, 1.3, 50_000).astype(np.int64), 1, 32_768)
    plan = plan_rows(lengths, 32_768, PackingParams())
    return np.array([attention_cost(lengths[plan.row(row)]).sum() for row in range(plan.num_rows)])


def test_attention_costs_the_square_of_a_document_or_its_length_times_the_group() -> None:
    assert attention_cost(np.array([1, 4, 8, 100])).tolist() == [1, 16, 64, 10_000]
    assert attention_cost(np.array([1, 4, 8, 100]), 8).tolist() == [1, 16, 64, 800]


def longest_first(costs: list[int], world_size: int) -> list[int]:
    """The definition, one row after the other."""
    places = [len(costs) // world_size + (rank < len(costs) % world_size) for rank in range(world_size)]
    load = [0] * world_size
    ranks = [0] * len(costs)
    for row in sorted(range(len(costs)), key=lambda i: -costs[i]):
        rank = min((r for r in range(world_size) if places[r]), key=lambda r: load[r])
        ranks[row] = rank
        load[rank] += costs[row]
        places[rank] -= 1
    return ranks


@FEW
@given(COSTS, st.integers(1, 9))
def test_dealing_is_longest_first_with_equally_many_rows_a_rank(costs: list[int], world_size: int) -> None:
    ranks = deal(np.array([costs, costs[::-1]], float), world_size)
    assert ranks[0].tolist() == longest_first(costs, world_size)
    assert ranks[1].tolist() == longest_first(costs[::-1], world_size)
    counts = np.bincount(ranks[0], minlength=world_size)
    assert counts.max() - counts.min() <= 1


@FEW
@given(st.lists(st.integers(1, 100), min_size=4, max_size=8).filter(lambda c: len(c) % 2 == 0))
def test_two_ranks_come_near_the_best_there_is(costs: list[int]) -> None:
    half = len(costs) // 2
    best = min(max(sum(chosen), sum(costs) - sum(chosen)) for chosen in itertools.combinations(costs, half))
    ranks = deal(np.array([costs], float), 2)[0]
    worst = max(sum(c for c, r in zip(costs, ranks, strict=True) if r == rank) for rank in (0, 1))
    assert worst <= 4 / 3 * best


def test_imbalance_over_an_epoch_falls_to_almost_none(costs: np.ndarray) -> None:
    for world_size in (2, 4, 8):
        figure = imbalance(costs, 64, world_size, seed=0)
        assert figure.world_size == world_size
        assert figure.before > 1.05
        assert 1 <= figure.after < 1.02
    assert imbalance(costs, 64, 1, seed=0).before == imbalance(costs, 64, 1, seed=0).after == 1


def test_imbalance_is_what_ranks_wait_for_each_other() -> None:
    costs = np.array([4.0, 1.0, 1.0, 2.0])
    first, second = costs[sample_order(4, 5, 0)].reshape(2, 2)
    figure = imbalance(costs, 2, 2, seed=5)
    assert figure.before == figure.after == pytest.approx((max(first) + max(second)) / ((sum(first) + sum(second)) / 2))
    with pytest.raises(ValueError, match="fewer than one step"):
        imbalance(costs, 8, 2, seed=0)


def test_with_one_row_a_rank_grouping_like_rows_is_what_helps(costs: np.ndarray) -> None:
    plain, grouped = imbalance(costs, 8, 8, seed=0), imbalance(costs, 8, 8, seed=0, window_steps=16)
    assert plain.after == plain.before > 2
    assert grouped.after < 1.2


@FEW
@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
def test_grouping_moves_rows_within_windows_of_whole_steps_only(rows: int, per_step: int, window: int, epoch: int) -> None:
    costs = np.random.default_rng(rows).random(rows)
    order = sample_order(rows, 0, epoch)
    grouped = group_similar(order, costs, per_step, window, 0, epoch)
    head = min(rows, -(epoch * rows) % per_step)
    assert grouped[:head].tolist() == order[:head].tolist()
    whole = head + (rows - head) // per_step * per_step
    assert grouped[whole:].tolist() == order[whole:].tolist()
    for start in range(head, whole, window * per_step):
        end = min(whole, start + window * per_step)
        assert sorted(grouped[start:end]) == sorted(order[start:end])
        steps = sorted((costs[grouped[i : i + per_step]] for i in range(start, end, per_step)), key=lambda c: -c[0])
        in_order = np.concatenate(steps)
        assert (np.diff(in_order) <= 0).all()  # each step's rows are neighbours in cost
