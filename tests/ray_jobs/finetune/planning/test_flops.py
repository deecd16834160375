"""Operations counted by formula against operations counted one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoModelForCausalLM, HunYuanMoEV1Config

from data_schemas.errors import UserError
from ray_jobs.finetune.planning.flops import ModelCost, cost_of, experts_a_token, known_peak, peak_flops, segment_pairs
from ray_jobs.finetune.planning.second_pass import second_pass_flops
from ray_jobs.finetune.segments import segment_batch
from ray_jobs.finetune.training import loop
from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.long_ce import LongCEWeights
from ray_jobs.finetune.training.objective import Objective, num_full_layers_of, set_full_layers, set_group_size, summed_loss
from ray_jobs.finetune.training.training_model import build_model
from tests.ray_jobs.finetune.training_example import CPU, ROWS, Rows, make_params, packed, run, write_base
from tests.tiny_models import tiny_config


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 20).map(lambda half: 2 * half))
def test_pairs_are_those_of_the_segments(lengths, group_size):
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    segments = segment_batch(positions, group_size)
    for kind, first in ((segments.unshifted, 0), (segments.shifted, group_size // 2)):
        counted = sum(n * (n + 1) // 2 for n in np.diff(kind.bounds).tolist())
        assert segment_pairs(np.array(lengths), group_size, first) == counted


@pytest.mark.parametrize("train_embeddings", [True, False])
def test_matrix_products_are_what_torch_counts(tmp_path, tokenizer, train_embeddings):
    base = write_base(tmp_path, tokenizer, tied=True)
    params = make_params(base, gradient_checkpointing=False, loss_kernel="chunked", train_embeddings=train_embeddings)
    model = build_model(params, CPU).train()
    lengths = ROWS[1]["seq_lengths"]
    with FlopCounterMode(display=False) as counter:
        # a chunk longer than the row: what is recomputed is no part of the count
        summed_loss(model, read_micro_batch(ROWS, [1], CPU), 128, "chunked").backward()
    by_operation = counter.get_flop_counts()["Global"]
    matrices = sum(count for operation, count in by_operation.items() if "attention" not in str(operation))
    cost = cost_of(model, model.get_base_model().config)
    formula = (4 * cost.matrix_weights + 2 * cost.trained_matrix_weights) * int(lengths.sum())
    # not in the formula's favour: rotary tables, and gradients of the first layer's inputs where nothing below is trained
    assert formula == pytest.approx(matrices, rel=0.06)
    assert cost.step_flops(lengths, 24) < cost.step_flops(lengths, 10_000)


# torch counts attention on a GPU, not its kernel for the CPU
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}


@pytest.mark.parametrize(("full_layers", "in_full"), [((), ()), ((1,), ()), ((0, 1), ()), ((), (0,)), ((0,), (1,))])
def test_attention_of_hybrids_is_what_torch_counts(tmp_path, tokenizer, full_layers, in_full):
    params = make_params(write_base(tmp_path, tokenizer, tied=True), gradient_checkpointing=False, loss_kernel="chunked")
    model = build_model(params, CPU).train()
    set_group_size(model, 24)
    heads = ((1, 0),) if full_layers == (0,) else ()  # and a head of the other layer
    set_full_layers(model, full_layers, heads)
    row = packed(96, 60) | {"full_attention": np.array([number in in_full for number in range(2)])}
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        summed_loss(model, read_micro_batch(Rows([row]), [0], CPU), 256, "chunked").backward()
    by_operation = counter.get_flop_counts()["Global"]
    attention = sum(count for operation, count in by_operation.items() if "attention" in str(operation))
    cost = cost_of(model, model.get_base_model().config)
    with_attention = cost.step_flops(row["seq_lengths"], 24, num_full_layers_of(model), row["full_attention"])
    matrices = (4 * cost.matrix_weights + 2 * cost.trained_matrix_weights) * 156
    # torch counts whole squares, of which the causal half is needed, and 2.5 times as much backward as forward
    assert 2 * (1 + 2.5) / 3 * (with_attention - matrices) == pytest.approx(attention, rel=0.15)


def test_layers_count_the_pairs_inside_their_sliding_windows(tmp_path, tokenizer):
    """As in Gemma 3: full attention changes only what the layers without a window cost."""
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    config = tiny_config("gemma3", vocab=384, length=32, num_hidden_layers=4, layer_types=kinds, sliding_window=5)
    base = write_base(tmp_path, tokenizer, tied=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    model = build_model(make_params(base), CPU)
    cost, lengths = cost_of(model, config), np.array([96, 3])
    matrices = (4 * cost.matrix_weights + 2 * cost.trained_matrix_weights) * 99

    def pairs(length, window):
        return sum(min(token + 1, window) for token in range(length))

    windows, whole = 3 * (pairs(96, 5) + pairs(3, 5)), pairs(96, 96) + pairs(3, 3)
    in_full = matrices + 12 * 8 * 4 * (windows + whole)
    assert cost.step_flops(lengths, 24, 1) == cost.step_flops(lengths, 192) == in_full
    assert cost.step_flops(lengths, 24, 0, np.array([True, True])) == in_full
    halves = 2 * (4 * pairs(24, 24) + pairs(3, 3)) + 2 * (pairs(12, 12) + 3 * pairs(24, 24) + pairs(12, 12) + pairs(3, 3))
    assert cost.step_flops(lengths, 24) == matrices + 12 * 8 * (4 * windows + halves)
    assert cost.forward_flops(lengths) == 2 * cost.matrix_weights * 99 + 4 * 8 * 4 * (windows + whole)


def cost_with(windows):
    return ModelCost(0, 0, layers=len(windows), heads=4, kv_heads=2, head_dim=8, windows=windows)


def pairs_within(lengths, window):
    return sum(min(token + 1, window) for length in lengths for token in range(length))


def test_layers_in_full_count_the_pairs_inside_a_window_of_at_least_a_group():
    """8 of 32 layers in full, rows of 4 windows: a layer in full computes its window, not the row."""
    lengths, cost = [64, 40, 7], cost_with((16,) * 32)
    in_window = 4 * pairs_within(lengths, 16)
    halves = 2 * (segment_pairs(lengths, 16, 0) + segment_pairs(lengths, 16, 8))
    assert cost.step_flops(lengths, 16, 8) == 12 * 8 * (8 * in_window + 24 * halves)
    assert cost.step_flops(lengths, 16, 32) == cost.step_flops(lengths, 128) == 12 * 8 * 32 * in_window
    assert cost.step_flops(lengths, 128, 8) == cost.step_flops(lengths, 128)  # as in the last steps in full
    marked = [False, True, False]  # this sequence is in full in all layers
    rest = 2 * (segment_pairs([64, 7], 16, 0) + segment_pairs([64, 7], 16, 8))
    wanted = 8 * in_window + 24 * (rest + 4 * pairs_within([40], 16))
    assert cost.step_flops(lengths, 16, 8, np.array(marked)) == 12 * 8 * wanted
    assert cost.step_flops(lengths, 16, 0, np.array([True] * 3)) == 12 * 8 * 32 * in_window


def test_layers_of_different_windows_count_their_mean_in_full():
    """Which of the layers in groups are in full is not known here. One whose window is shorter than a group is none of them."""
    lengths, cost = [64], cost_with((4, 16, 32, None))
    of_layers = [4 * pairs_within(lengths, window) for window in (16, 32, 64)]
    short = 4 * pairs_within(lengths, 4)
    halves = 2 * (segment_pairs(lengths, 16, 0) + segment_pairs(lengths, 16, 8))
    assert cost.step_flops(lengths, 16, 1) == pytest.approx(12 * 8 * (sum(of_layers) / 3 + 2 * halves + short))
    assert cost.step_flops(lengths, 16, 3) == pytest.approx(12 * 8 * (sum(of_layers) + short))
    assert cost.step_flops(lengths, 128) == 12 * 8 * (sum(of_layers) + short)
    assert cost.step_flops(lengths, 16, 0, np.array([True])) == 12 * 8 * (sum(of_layers) + short)


def test_layers_that_do_not_attend_count_no_pairs(tmp_path, tokenizer):
    config = tiny_config("lfm2-convolution", vocab=384, length=32)
    base = write_base(tmp_path, tokenizer, tied=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    cost = cost_of(build_model(make_params(base), CPU), config)
    matrices = (4 * cost.matrix_weights + 2 * cost.trained_matrix_weights) * 10
    assert cost.step_flops(np.array([10]), 24, 1) == matrices + 12 * 8 * 4 * 55  # one of two layers


def test_the_second_pass_of_long_ce_is_what_torch_counts(tmp_path, tokenizer):
    base = write_base(tmp_path, tokenizer, tied=True)
    params = make_params(base, gradient_checkpointing=False, loss_chunk_tokens=256, loss_weighting="long_ce", loss_long_from=16)
    model = build_model(params, CPU)
    objective = Objective(model, params.training).train()
    batch, cost = read_micro_batch(Rows([packed(96, 60)]), [0], CPU), cost_of(model, model.get_base_model().config)
    asked = []
    LongCEWeights(16).of_batch(batch, lambda joined: asked.append(joined) or torch.zeros(joined.input_ids.shape[1]))
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        for joined in asked:
            objective._token_losses(joined)
    formula = second_pass_flops(params, cost, np.array([96, 60]))
    matrices = 2 * cost.matrix_weights * sum(joined.input_ids.shape[1] for joined in asked)
    # torch counts whole squares, of which the causal half is needed
    assert matrices + 2 * (formula - matrices) == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert second_pass_flops(make_params(base), cost, np.array([96, 60])) == 0


def test_experts_may_be_stated_by_layer():
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "num_experts": 4}

    def costs(topk):
        config = HunYuanMoEV1Config(**sizes, moe_topk=topk)
        with torch.device("meta"):
            return cost_of(AutoModelForCausalLM.from_config(config), config), experts_a_token(config)

    assert costs([1, 3]) == (costs(2)[0], 3)
    assert costs([1, 1])[0].matrix_weights < costs(2)[0].matrix_weights


@pytest.mark.parametrize("is_said", [True, False])
def test_training_goes_on_without_its_mfu_where_the_base_does_not_say_its_cost(tmp_path, tokenizer, monkeypatch, is_said):
    def unsaid(model, config):
        raise UserError("The cost of odd cannot be predicted")

    if not is_said:
        monkeypatch.setattr(loop, "cost_of", unsaid)
    params = make_params(write_base(tmp_path / "base", tokenizer, tied=True), steps=1, checkpoint_every=1)
    params = params.model_copy(update={"ray": params.ray.model_copy(update={"peak_tflops": 1.0})})
    _, reports, _ = run(params, tmp_path)
    assert ["mfu" in report for report in reports] == [is_said]


def test_peak_is_as_stated_and_else_unknown_on_a_cpu():
    assert peak_flops(CPU, 312, "bf16") == 312e12
    assert peak_flops(CPU, None, "bf16") is None


def test_a_device_is_known_by_whole_words():
    assert known_peak("NVIDIA L4") == 121e12
    assert known_peak("NVIDIA A100-SXM4-80GB") == 312e12
    assert known_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert known_peak("NVIDIA L40") is None
    assert known_peak("NVIDIA RTX A1000") is None
