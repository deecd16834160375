"""What cutting rows sends and how long rows may be, by the plan's formulas."""

import pytest

from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.flops import ModelCost
from ray_jobs.finetune.planning.memory import predict_memory
from ray_jobs.finetune.planning.sequence import (
    Pattern,
    exchanged_bytes,
    largest_part,
    longest_row,
    patterns_of,
    sent_bytes,
    validation_bytes,
    worker_peak,
)
from ray_jobs.finetune.planning.sequence_time import hours_a_billion_tokens
from ray_jobs.finetune.planning.shape import training_shape
from ray_jobs.finetune.planning.worker_memory import memory_of_worker


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


def longest(workers: int, num_bytes: float = 8e9, **training: object) -> int:
    params = params_of(2, **{"full_attention_layers": "none"} | training)
    return longest_row(params, training_shape(params), num_bytes, workers, cuda=False)


def test_more_workers_take_longer_rows() -> None:
    rows = [longest(workers) for workers in (1, 2, 8)]
    assert rows[0] > 10_000
    assert rows[1] == pytest.approx(2 * rows[0], rel=0.1)
    assert rows[2] == pytest.approx(8 * rows[0], rel=0.1)
    assert longest(8, full_attention_every=2) < 0.9 * rows[2], (
        "8 workers do not divide 2 key-value heads: the first part is longest"
    )
    assert longest(8, 1e6) == 0


def test_the_longest_row_is_one_that_can_be_validated() -> None:
    """64 workers do not divide 2 key-value heads: in validation the last of them holds the keys and values of the row."""
    params, workers = params_of(2, full_attention_layers="none", activation_offload=True, mlp_tile_tokens=1024), 64
    shape = training_shape(params)
    tokens = longest_row(params, shape, 8e9, workers, cuda=True)
    _, peak = worker_peak(params, shape, params.training, tokens, workers, workers, cuda=True)
    assert peak.moment == "validation"
    assert peak.activations == validation_bytes(shape, params.training, tokens, workers)
    assert peak.activations > 2 * 2 * 64 * 4 * tokens, "keys and values of a head, joined"
    assert peak.total == pytest.approx(0.97 * 8e9, rel=0.01)
    in_training = predict_memory(shape, params.training, tokens // workers, num_workers=workers, cuda=True).total
    assert in_training < 0.9 * peak.total


FIRST, IN_FULL = Pattern(0, 2048), Pattern(4, 2 * 65_536)


def test_what_an_exchange_needs_beside_the_part() -> None:
    params, two, token = params_of(2), 2, 2 * 64 * 4  # bytes of the key and value of a head
    shape = training_shape(params)
    scores = 12 * 2 * 1024 * 2048
    assert exchanged_bytes(shape, 65_536, FIRST, two) == 3 * 2 * token * 2048 + scores, "a group, however long the row"
    exchanging = exchanged_bytes(shape, 655_360, Pattern(1, 2048), two)
    assert exchanging == 655_360 / 2 * (3 * 4 + 2 * 2) * 64 * 4, "2 workers divide 2 key-value heads"
    by_halos = exchanged_bytes(shape, 655_360, Pattern(1, 2048), 3)
    assert by_halos >= (2 + 3) * token * 655_360, (
        "3 do not: all keys and values, and of one head what was received and gradients"
    )
    assert exchanged_bytes(shape, 65_536, FIRST, 1) == 0


def test_full_attention_has_no_groups_whose_halo_would_be_held() -> None:
    params = params_of(2, attention="full")
    shape = training_shape(params)
    assert exchanged_bytes(shape, 1024, IN_FULL, 2) == 1024 / 2 * (3 * 4 + 2 * 2) * 64 * 4
    assert patterns_of(params, shape) == [IN_FULL]


def test_several_rows_are_cut_as_one() -> None:
    params = params_of(2)
    shape = training_shape(params)
    assert largest_part(shape, 65_536, FIRST, 2, rows=3) == 3 * 65_536 // 2
    whole = (shape, 65_536, FIRST, 2)
    assert exchanged_bytes(*whole, rows=2) == 0, "the cut is between two documents"
    assert exchanged_bytes(*whole, rows=3) == exchanged_bytes(*whole)
    heads = (shape, 65_536, IN_FULL, 2)
    assert exchanged_bytes(*heads, rows=3) == 3 * exchanged_bytes(*heads), "heads are exchanged for all tokens"


def test_the_peak_is_that_of_the_time_of_a_run_that_needs_most() -> None:
    plain = params_of(2, full_attention_layers="none")
    shape = training_shape(plain)
    last_steps = params_of(2, full_attention_layers="none", full_attention_steps=1)
    retrieval = plain.model_copy(update={"retrieval": plain.retrieval.model_copy(update={"share": 0.1})})
    group = Pattern(0, 2048)
    assert patterns_of(plain, shape) == [group]
    assert patterns_of(last_steps, shape) == patterns_of(retrieval, shape) == [group, IN_FULL]
    peaks = [memory_of_worker(params, shape, 8e9).estimate.total for params in (plain, last_steps, retrieval)]
    assert peaks[0] < peaks[1] == peaks[2]
    source = plain.corpus.sources[0].model_copy(update={"instructions": "auto"})
    conversations = plain.model_copy(
        update={
            "corpus": plain.corpus.model_copy(update={"sources": (source,)}),
            "packing": plain.packing.model_copy(update={"full_attention_conversations": True}),
        }
    )
    assert patterns_of(conversations, shape)[1:] == [Pattern(4, 2048, by_halos=True)]
    assert memory_of_worker(conversations, shape, 8e9).estimate.total > peaks[1], "keys and values of the row, not heads"


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
