"""Which rows a step and a rank see: for any number of workers, from any step on, each row once an epoch."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.storage import Storage
from ray_jobs.finetune import checkpoint_stage as stage
from ray_jobs.finetune.training.batches import StepOrder, costs_of_rows, read_micro_batch, rows_of_rank, rows_of_step

FEW = settings(max_examples=60)


class Rows(list):
    def row(self, index):
        return self[index]

    def chunk_ids(self, index):
        return []


def packed(*lengths):
    return {"input_ids": np.arange(sum(lengths), dtype=np.int32), "seq_lengths": np.array(lengths, np.int32)}


@FEW
@given(st.integers(1, 60), st.integers(1, 16), st.integers(1, 8), st.integers(0, 5))
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_workers(rows, per_step, world_size, step):
    costs = np.random.default_rng(rows).random(rows)
    step_rows = rows_of_step(step, per_step, rows, seed=1)
    of_ranks = [rows_of_rank(step_rows, rank, world_size, 2, costs[step_rows]) for rank in range(world_size)]
    assert sorted(i for micros in of_ranks for micro in micros for i in micro) == sorted(step_rows)
    assert all(len(micro) <= 2 for micros in of_ranks for micro in micros)
    counts = [sum(map(len, micros)) for micros in of_ranks]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("window_steps", [1, 3])
@pytest.mark.parametrize(("rows", "per_step"), [(10, 4), (10, 5), (7, 16), (100, 8)])
def test_resuming_in_the_middle_of_an_epoch_gives_the_same_rows(rows, per_step, window_steps):
    costs = np.random.default_rng(99).random(rows)

    def started():
        return StepOrder(rows, per_step, 3, costs, window_steps)

    straight = started()
    all_steps = [straight.rows(step) for step in range(30)]
    for first in (29, 13, 1, 7):  # a new process each, which has seen none of the steps before
        resumed = started()
        assert [resumed.rows(step) for step in range(first, 30)] == all_steps[first:]
    seen = [row for step_rows in all_steps for row in step_rows]
    for epoch in range(len(seen) // rows):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_the_plain_order_is_recorded():
    assert [rows_of_step(step, 3, 8, seed=0) for step in (0, 1, 2)] == [[3, 2, 1], [6, 0, 7], [4, 5, 7]]


def test_steps_of_like_rows_are_made_of_neighbours_in_cost():
    costs = np.random.default_rng(99).random(400)
    spread = {w: np.mean([np.ptp(costs[StepOrder(400, 4, 0, costs, w).rows(s)]) for s in range(100)]) for w in (1, 25)}
    assert spread[25] < spread[1] / 5
    with pytest.raises(ValueError, match="needs the costs of the rows"):
        StepOrder(400, 4, 0, None, 2)


def test_costly_rows_go_to_different_ranks():
    rows = Rows([packed(64), packed(*[8] * 8), packed(64), packed(32, 32)])
    costs = costs_of_rows(rows, [0, 1, 2, 3])
    assert costs.tolist() == [4096, 512, 4096, 2048]
    assert costs_of_rows(rows, [0, 3], group_size=16).tolist() == [1024, 1024]
    assert costs_of_rows(rows, [0, 3], group_size=16, full_share=0.25).tolist() == [
        0.25 * 4096 + 0.75 * 1024,
        0.25 * 2048 + 768,
    ]
    marked = Rows([rows[3] | {"full_attention": np.array([True, False])}])
    assert costs_of_rows(marked, [0], group_size=16).tolist() == [32 * 32 + 32 * 16]
    assert [rows_of_rank([0, 1, 2, 3], rank, 2, 1, costs) for rank in (0, 1)] == [[[0], [3]], [[1], [2]]]
    assert [rows_of_rank([0, 1, 2, 3], rank, 2, 1) for rank in (0, 1)] == [[[0], [2]], [[1], [3]]]


def test_a_micro_batch_restarts_positions_at_each_document():
    batch = read_micro_batch(Rows([packed(3, 2), packed(4)]), [1, 0], torch.device("cpu"))
    assert batch.input_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1]]


def test_a_micro_batch_marks_the_tokens_of_documents_that_attend_in_full():
    marked = packed(4, 2) | {"full_attention": np.array([False, True])}
    batch = read_micro_batch(Rows([packed(3), marked]), [0, 1], torch.device("cpu"))
    assert batch.in_full.tolist() == [[False] * 7 + [True] * 2]
    unmarked = packed(4, 2) | {"full_attention": np.array([False, False])}
    assert read_micro_batch(Rows([packed(3), unmarked]), [0, 1], torch.device("cpu")).in_full is None


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_training_names_a_damaged_shard_before_it_starts_a_worker(tmp_path, tokenizer, damage, monkeypatch):
    base = tmp_path / "base"
    tokenizer.save_pretrained(base)
    LlamaConfig(vocab_size=384, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(base)
    storage = Storage(str(tmp_path / "storage"))

    def make(directory):
        for number in range(2):
            (directory / f"data-0000{number}-of-00002.arrow").write_bytes(bytes(1000))
        return {}

    shards = storage.build("shards", stage="prepare", params={}, code_version=1, parents={}, make=make)
    shard = shards.path / "data-00001-of-00002.arrow"
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(bytes(900) if damage == "truncated" else bytes(999) + b"\x01")
    params = PipelineParams.model_validate(
        {"run_name": "t", "corpus": {"sources": ["x"]}, "model": {"base": str(base), "target_length": 4096}}
    )
    monkeypatch.setitem(sys.modules, "ray.train.torch", None)  # importing the trainer would fail
    with pytest.raises(UserError, match=r"damaged: data-00001-of-00002\.arrow (is missing|has)"):
        stage.run(params, storage, shards, lambda _: None)
