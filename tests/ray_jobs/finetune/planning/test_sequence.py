"""What cutting rows sends and how long rows may be, by the plan's formulas."""

import pytest

from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.flops import ModelCost
from ray_jobs.finetune.planning.sequence import exchanged_bytes, longest_row, sent_bytes
from ray_jobs.finetune.planning.sequence_time import hours_a_billion_tokens
from ray_jobs.finetune.planning.shape import training_shape


def params_of(sequence_workers: int, **training: object) -> PipelineParams:
    return PipelineParams.model_validate(
        {
            "run_name": "long",
            "corpus": {"sources": ["x"]},
            "model": {"base": "demo", "target_length": 65_536, "rope_method": "yarn"},
            "training": {"rows_per_step": 4, "s2_group_size": 2048, "precision": "fp32", **training},
            "ray": {"num_workers": sequence_workers, "sequence_workers": sequence_workers},
        }
    )


def test_bytes_are_those_of_half_a_group_of_half_of_the_heads() -> None:
    params = params_of(2)
    found = sent_bytes(params, training_shape(params), 1, 2048)
    assert found.layer_in_groups == 1024 * 2 * 64 * 4, "keys and values of the shifted head alone"
    assert found.ring_layer / found.layer_in_groups > 50
    assert found.layer_in_full == pytest.approx(65_536 / 2 * (8 + 4) * 64 * 4 / 2, rel=0.05)
    assert found.step == 3 * (3 * found.layer_in_groups + found.layer_in_full)


def test_more_workers_take_longer_rows() -> None:
    params = params_of(2)
    shape = training_shape(params)
    rows = [longest_row(params, shape, 8e9, workers, False, 0, 2048) for workers in (1, 2, 8)]
    assert rows[0] > 10_000
    assert rows[1] == pytest.approx(2 * rows[0], rel=0.1)
    uneven = [longest_row(params, shape, 8e9, 8, False, full, 2048) for full in (0, 2)]
    assert uneven[1] < 0.9 * uneven[0], "8 workers do not divide 2 key-value heads: the first part of a row is the longest"
    assert rows[2] == pytest.approx(8 * rows[0], rel=0.1)
    assert longest_row(params, shape, 1e6, 8, cuda=False) == 0


def test_what_an_exchange_needs_beside_the_part() -> None:
    params, two = params_of(2), 2
    shape = training_shape(params)
    in_groups = exchanged_bytes(params, shape, 65_536, 0, 2048, two)
    scores = 12 * 2 * 1024 * 2048
    assert in_groups == 3 * 2 * 2 * 64 * 4 * 2048 + scores, "a group, however long the row"
    exchanging = exchanged_bytes(params, shape, 655_360, 1, 2048, two)
    assert exchanging == 655_360 / 2 * (3 * 4 + 2 * 2) * 64 * 4, "2 workers divide 2 key-value heads"
    assert exchanged_bytes(params, shape, 655_360, 1, 2048, 3) > 3 * 2 * 2 * 64 * 4 * 655_360, "3 do not: all keys and values"
    assert exchanged_bytes(params, shape, 65_536, 0, 2048, 1) == 0


def test_hours_of_a_billion_tokens() -> None:
    """One layer of one head of one channel, so that all can be counted by hand."""
    cost = ModelCost(matrix_weights=0, trained_matrix_weights=0, layers=1, heads=1, kv_heads=1, head_dim=1)
    found = hours_a_billion_tokens(cost, 1000, 2, 100, flops_per_s=1e6, bytes_per_s=1e9)
    rows = 1e9 / 1000 / 3600
    pairs_in_full = 1000 * 1001 / 2
    assert found.ring == pytest.approx(rows * 12 * pairs_in_full / 2e6), "what is sent is hidden"
    sent = 3 * 2 * 4 * 500 / 2  # passes, bytes, queries, keys, values and outputs, tokens, the half for the other worker
    assert found.ulysses == pytest.approx(rows * (12 * pairs_in_full / 2e6 + sent / 1e9))
    assert found.groups == pytest.approx(rows * 12 * 10 * (100 * 101 / 2) / 2e6)
    slow = hours_a_billion_tokens(cost, 1000, 2, 100, flops_per_s=1e30, bytes_per_s=1.0)
    assert slow.ring == pytest.approx(rows * 3 * 2 * 2 * 1000 / 2)
    assert slow.groups == pytest.approx(rows * 3 * 2 * 2 * 50)
