"""The dry run: a real step on tensors without content finds faults of the device's code, and counts memory, operations and bytes."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

import ray_jobs.finetune.training.loss as loss_module
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from flows.commands.plan_dry_run import rows_of
from ray_jobs.finetune.dry_run import rehearsal
from ray_jobs.finetune.dry_run.fake_device import fake_process_group, fake_tensors
from ray_jobs.finetune.dry_run.ledger import WEIGHTS, Ledger
from ray_jobs.finetune.dry_run.operations import AttentionPairs
from ray_jobs.finetune.dry_run.rehearsal import DryRun, FullRows, dry_run
from ray_jobs.finetune.executors import rehearsing_gpu
from ray_jobs.finetune.planning.sequence import _validation_bytes
from ray_jobs.finetune.planning.shape import training_shape
from ray_jobs.finetune.training.distributed import Worker
from ray_jobs.finetune.training.row_parts import sequence_link
from ray_jobs.finetune.training.steps import validate

TOKENS = 1024
GPU = {"use_gpu": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration without weights: the dry run reads no more."""
    folder = tmp_path_factory.mktemp("base")
    LlamaConfig(
        vocab_size=2048, hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=TOKENS // 4, tie_word_embeddings=True, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    return folder


def rehearsed(base: Path, training: dict[str, Any], ray: dict[str, Any]) -> DryRun:
    training = {"precision": "bf16", "loss_chunk_tokens": 256, "full_attention_every": 3} | training
    params = PipelineParams.model_validate(
        {
            "run_name": "dry",
            "corpus": {"sources": ["none"]},
            "model": {"base": str(base), "target_length": TOKENS, "rope_method": "yarn"},
            "training": training,
            "ray": ray,
        }
    )
    return dry_run(params, training_shape(params))


@pytest.fixture(scope="module")
def alone(base: Path) -> DryRun:
    return rehearsed(base, {}, GPU)


def test_a_gpu_is_rehearsed_without_one(alone: DryRun) -> None:
    assert alone.checked_on_gpu
    assert abs(alone.ratio - 1) < 0.1, alone
    # Attention by hand: 4 + 4 (recomputed) + 10 a pair, head and channel. One layer in full, two in groups of a quarter.
    full, group = TOKENS * (TOKENS + 1) / 2, TOKENS // 4
    unshifted, shifted = 4 * group * (group + 1) / 2, 3 * group * (group + 1) / 2 + 2 * (group // 2) * (group // 2 + 1) / 2
    assert alone.attention_flops == pytest.approx(18 * 256 * (full + 2 * (unshifted + shifted) / 2), rel=1e-6)
    assert alone.matrix_flops > alone.needed_flops * 0.9
    text = dict(rows_of(alone))
    assert "no fault in training and validation on a GPU" in text["devices, types and shapes"]
    assert "1.0" in text["memory: peak"] or "0.9" in text["memory: peak"]


def test_offloaded_inputs_are_not_counted(base: Path, alone: DryRun) -> None:
    offloading = rehearsed(base, {"activation_offload": True}, GPU)
    assert alone.peak_bytes - offloading.peak_bytes == pytest.approx(
        2 * TOKENS * 256 * 4, rel=0.01
    )  # inputs of two of three layers


def test_kept_outputs_of_attention_are_counted_as_the_formula_says(base: Path, alone: DryRun) -> None:
    kept = rehearsed(base, {"attention_outputs": "kept"}, GPU)
    assert abs(kept.ratio - 1) < 0.1, kept
    assert kept.peak_bytes > alone.peak_bytes
    assert kept.attention_flops < alone.attention_flops, "attention is not computed twice"


def test_a_cluster_is_rehearsed_in_one_process(base: Path, alone: DryRun) -> None:
    copies = rehearsed(base, {"rows_per_step": 4, "kept_layers": 2}, GPU | {"num_workers": 4})
    shards = rehearsed(base, {"rows_per_step": 4, "parallelism": "fsdp"}, GPU | {"num_workers": 4})
    trained = alone.parts["gradients"]
    assert copies.sent_bytes["all-reduce"] == pytest.approx(2 * 3 / 4 * trained, rel=0.01)
    assert copies.peak_bytes > alone.peak_bytes  # two layers are not recomputed
    assert abs(copies.ratio - 1) < 0.1
    assert shards.parts["gradients"] == pytest.approx(trained / 4, rel=0.05)
    assert shards.parts["weights"] == pytest.approx(alone.parts["weights"] / 4, rel=0.05)
    assert shards.sent_bytes["reduce-scatter"] == pytest.approx(3 / 4 * trained, rel=0.01)
    assert shards.sent_bytes["all-gather"] > shards.sent_bytes["reduce-scatter"]
    assert shards.peak_bytes < alone.peak_bytes
    assert abs(shards.ratio - 1) < 0.1


def test_rows_over_several_workers_are_rehearsed(base: Path, alone: DryRun) -> None:
    """Group 256, one layer in full of three: heads are exchanged over 2 workers, keys and values sent from the start over 4."""
    token = 2 * 64 * 2  # keys and values of one head, in bfloat16
    two, four = (
        rehearsed(base, {"rows_per_step": 2, "micro_batch_rows": 1}, GPU | {"num_workers": 2 * n, "sequence_workers": n})
        for n in (2, 4)
    )
    name, every_head = "keys and values of a row, and gradients", 2
    # The second of two workers sends gradients alone: of the shifted head, half a group, in two layers.
    assert two.sent_bytes[name] == 2 * 128 * token
    heads_of_part = TOKENS // 2 * 64 * 2
    queries_keys_values_outputs = (4 + 2 + 2 + 4) * heads_of_part * 1 / 2
    assert two.sent_bytes["heads for tokens"] == pytest.approx(3 * queries_keys_values_outputs, rel=0.05)
    # The third of four sends forward twice and gradients once; in full from the row's start on, to one worker and for two before it.
    assert four.sent_bytes[name] > 3 * 2 * 128 * token + every_head * token * TOKENS // 4
    assert "heads for tokens" not in four.sent_bytes
    assert two.tokens == TOKENS // 2
    for found in (two, four):
        assert 0.85 < found.ratio < 1.2, found  # the formula is for the worker that needs most, which is the last one
        assert found.peak_bytes < alone.peak_bytes
        assert any("that share a row" in note for note in found.notes)


def counted_in_validation(params: PipelineParams, rank: int, workers: int) -> int:
    """Bytes at the peak of a validation beside the weights, with full attention alone."""
    in_full = params.model_copy(update={"training": params.training.model_copy(update={"attention": "full"})})
    with ExitStack() as around:
        around.enter_context(fake_process_group(workers, rank))
        worker = Worker(rank, workers, torch.device("cpu"), sequence_link(rank, workers, workers))
        around.enter_context(fake_tensors())
        around.enter_context(rehearsing_gpu())
        objective = rehearsal._objective(params, worker.device)
        ledger = Ledger(workers, workers)
        ledger.count([*objective.parameters(), *objective.buffers()], WEIGHTS)
        weights = ledger.peak_bytes
        with AttentionPairs(), ledger:
            validate(objective, FullRows(1, params.row_tokens), in_full, worker)
    return ledger.peak_bytes - weights


@pytest.mark.parametrize(("workers", "rank"), [(2, 1), (3, 2)])
def test_validation_of_a_cut_row_takes_what_the_formula_says(base: Path, workers: int, rank: int) -> None:
    """2 workers divide the 2 key-value heads, 3 do not: the last of them holds keys and values of the row, of a head at a time."""
    params = PipelineParams.model_validate(
        {
            "run_name": "dry",
            "corpus": {"sources": ["none"]},
            "model": {"base": str(base), "target_length": 32 * TOKENS, "rope_method": "yarn"},
            "training": {"precision": "bf16", "loss_chunk_tokens": 256, "rows_per_step": workers, "loss_kernel": "chunked"},
            "ray": GPU | {"num_workers": workers, "sequence_workers": workers},
        }
    )
    foreseen = list(_validation_bytes(training_shape(params), params.training, params.row_tokens, workers))[rank]
    assert 0.9 < foreseen / counted_in_validation(params, rank, workers) < 1.15


def test_rows_in_a_micro_batch_are_foreseen_as_they_are_counted(base: Path) -> None:
    """Three rows cut as one over two workers, one layer in full, for which heads of all tokens are exchanged."""
    three = rehearsed(base, {"rows_per_step": 3, "micro_batch_rows": 3}, GPU | {"num_workers": 2, "sequence_workers": 2})
    assert three.tokens == 3 * TOKENS // 2
    assert 0.85 < three.ratio < 1.2, three


def test_code_that_would_fail_on_a_gpu_is_found(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    correct = loss_module.next_token_targets

    def on_the_cpu(ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return correct(ids, positions) + torch.ones(len(positions), dtype=torch.int64)  # works wherever the default device is

    monkeypatch.setattr("ray_jobs.finetune.training.objective.next_token_targets", on_the_cpu)
    with pytest.raises(UserError, match=r"dry run failed on a GPU.*two devices, cuda:0 and cpu"):
        rehearsed(base, {}, GPU)
