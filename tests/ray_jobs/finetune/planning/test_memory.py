"""The memory formula: what is counted against a real model, how it grows, and one measured step."""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)

from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.planning.flops import cost_of
from ray_jobs.finetune.planning.memory import (
    SHARE_FOR_KEEPING,
    attention_bytes,
    keeping_attention_fits,
    predict_memory,
)
from ray_jobs.finetune.planning.shape import TrainingShape, training_shape
from ray_jobs.finetune.planning.worker_memory import as_trained, largest_micro_batch, memory_of_worker, most_kept_layers
from ray_jobs.finetune.training.kept_attention import keeps_attention_within
from ray_jobs.finetune.training.lora import add_trainable_weights, trainable
from tasks.model.quantised_linear import quantise_linears
from tests.flows.small_run import small_params
from tests.ray_jobs.finetune.training_example import make_params


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> PipelineParams:
    return PipelineParams.model_validate(small_params(tmp_path_factory.mktemp("memory"), tokenizer))


@pytest.fixture(scope="module")
def shape(params: PipelineParams) -> TrainingShape:
    return training_shape(params)


def with_training(params: PipelineParams, **changes: Any) -> PipelineParams:
    return params.model_copy(update={"training": params.training.model_copy(update=changes)})


@pytest.mark.parametrize(
    "changes", [{}, {"train_embeddings": "none"}, {"train_norms": False}, {"lora_targets": ("all-linear",), "lora_rank": 4}]
)
def test_weights_are_counted_as_a_real_model_has_them(params: PipelineParams, changes: dict[str, Any]) -> None:
    changed = with_training(params, **changes)
    counted = training_shape(changed)
    base = LlamaForCausalLM.from_pretrained(params.model.base)
    assert counted.num_total == sum(p.numel() for p in base.parameters())
    model = add_trainable_weights(base, changed.training)
    assert counted.num_trainable == sum(p.numel() for _, p in trainable(model))
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    assert 4 * (counted.num_trainable + counted.num_frozen) == sum(held.values())
    assert counted.trains_head is (changes.get("train_embeddings") != "none")  # tied


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_quantised_weights_are_counted_as_a_real_model_holds_them(params: PipelineParams, precision: str) -> None:
    changed = with_training(params, base_precision=precision, average_last_steps=1)
    base = LlamaForCausalLM.from_pretrained(params.model.base)
    quantise_linears(base, changed.training.base_precision, torch.device("cpu"))  # type: ignore[arg-type]
    model = add_trainable_weights(base, changed.training)
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    shape = training_shape(changed)
    foreseen = predict_memory(shape, changed.training, 64).weights - 4 * shape.num_trainable  # the mean of the weights
    assert foreseen == pytest.approx(sum(held.values()), rel=0.02)
    full = predict_memory(training_shape(params), params.training, 64).weights
    assert full - foreseen == pytest.approx(shape.num_quantised * (4 - shape.quantised_bytes))


def test_what_reads_each_input_of_a_layer(params: PipelineParams, shape: TrainingShape) -> None:
    assert shape.lora_reads == {"attention": 3, "output": 1, "mlp": 0, "product": 0}
    everything = training_shape(with_training(params, lora_targets=("all-linear",)))
    assert everything.lora_reads == {"attention": 3, "output": 1, "mlp": 2, "product": 1}


def kept_for_backward(model: torch.nn.Module, ids: torch.Tensor) -> int:
    """Bytes of distinct tensors that autograd keeps over a forward pass of the layers, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: list[weakref.ref[torch.Tensor]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(weakref.ref(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model(input_ids=ids, use_cache=False).last_hidden_state
    storages = [tensor.untyped_storage() for one in saved if (tensor := one()) is not None]
    total = sum({s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in weights}.values())
    hidden.sum().backward()
    return total


@pytest.mark.parametrize("targets", [("q_proj", "k_proj", "v_proj", "o_proj"), ("all-linear",), ("q_proj", "v_proj")])
@pytest.mark.parametrize(("train_norms", "dora"), [(True, False), (False, False), (True, True)])
def test_the_formula_of_a_layer_is_what_autograd_keeps(
    params: PipelineParams, targets: tuple[str, ...], train_norms: bool, dora: bool
) -> None:
    """The difference between four and two layers, so that embeddings and the last norm do not count."""
    from ray_jobs.finetune.attention import register_s2_attention
    from ray_jobs.finetune.planning.memory import inside_layer_bytes
    from ray_jobs.finetune.training.objective import set_group_size

    register_s2_attention()
    tokens, kept = 256, {}
    changed = with_training(params, lora_targets=targets, train_norms=train_norms, dora=dora)
    for layers in (2, 4):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=384, hidden_size=64, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=True, attn_implementation="s2", max_position_embeddings=256,
        )  # fmt: skip
        model = add_trainable_weights(LlamaForCausalLM(config), changed.training).train()
        set_group_size(model, 64)
        kept[layers] = kept_for_backward(model.get_base_model().model, torch.randint(0, 384, (1, tokens)))
    writes = sum(m.out_features for m in model.modules() if dora and hasattr(m, "lora_A")) // layers
    sizes = {"dora_writes": writes, "hidden": 64, "query": 64, "key_value": 32, "num_heads": 4, "intermediate": 192}
    shape = replace(training_shape(changed), **sizes)  # type: ignore[arg-type]
    foreseen = tokens * (inside_layer_bytes(shape) + shape.hidden * shape.residual_bytes)
    assert foreseen == pytest.approx((kept[4] - kept[2]) / 2, rel=0.08)


EXPERTS = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 384,
           "max_position_embeddings": 256}  # fmt: skip


@pytest.mark.parametrize("targets", [("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "experts.down_proj")])
@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_experts_are_counted_as_a_real_model_has_them(tmp_path: Path, kind: str, targets: tuple[str, ...]) -> None:
    """Weights, what a layer keeps (the difference between four and two layers), and matrix products of the experts that are used."""
    from torch.utils.flop_counter import FlopCounterMode

    from ray_jobs.finetune.attention import register_s2_attention
    from ray_jobs.finetune.planning.memory import inside_layer_bytes
    from ray_jobs.finetune.training.objective import set_group_size

    register_s2_attention()
    if kind == "mixtral":
        config: Any = MixtralConfig(**EXPERTS, intermediate_size=192, num_local_experts=4, num_experts_per_tok=2)
    else:
        config = Qwen3MoeConfig(**EXPERTS, moe_intermediate_size=96, num_experts=8, num_experts_per_tok=3)
    config.architectures = [type(AutoModelForCausalLM.from_config(config)).__name__]
    config.save_pretrained(tmp_path)
    params = make_params(tmp_path, lora_targets=targets, full_attention_layers="none")
    shape, tokens, kept = training_shape(params), 256, {}
    for layers in (2, 4):
        torch.manual_seed(0)
        config.num_hidden_layers = layers
        base = AutoModelForCausalLM.from_config(config, attn_implementation="s2")
        num_total = sum(p.numel() for p in base.parameters())
        model = add_trainable_weights(base, params.training).train()
        set_group_size(model, 64)
        kept[layers] = kept_for_backward(model.get_base_model().model, torch.randint(0, 384, (1, tokens)))  # type: ignore[arg-type]
        if layers == 2:
            assert shape.num_total == num_total
            assert shape.num_trainable == sum(p.numel() for _, p in trainable(model))
    foreseen = tokens * (inside_layer_bytes(shape) + shape.hidden * shape.residual_bytes) + 4 * shape.updated_experts
    assert foreseen == pytest.approx((kept[4] - kept[2]) / 2, rel=0.05)
    if shape.updated_experts:
        return
    model.get_base_model().set_experts_implementation("eager")  # whose products torch counts  # type: ignore[operator]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.randint(0, 384, (1, tokens)))
    matrices = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "attention" not in str(op))
    counted = cost_of(model, config)
    assert 2 * counted.matrix_weights * tokens == pytest.approx(matrices, rel=0.03)


@given(st.integers(64, 100_000), st.integers(2, 8), st.booleans())
def test_memory_is_linear_in_tokens_beyond_the_weights(tokens: int, times: int, checkpointing: bool) -> None:
    shape, training = one_billion(), TrainingParams(gradient_checkpointing=checkpointing, loss_chunk_tokens=16)
    one, many = (predict_memory(shape, training, tokens * n) for n in (1, times))
    grown = many.activations + many.loss
    assert (one.weights, one.gradients, one.optimizer) == (many.weights, many.gradients, many.optimizer)
    assert one.activations + one.loss <= grown <= times * (one.activations + one.loss) * (1 + 1e-9)


def one_billion() -> TrainingShape:
    """Llama 3.2 1B's sizes with LoRA on attention, norms and embeddings, on a GPU."""
    from ray_jobs.finetune.planning.flops import ModelCost

    return TrainingShape(
        num_layers=16, hidden=2048, query=2048, key_value=512, num_heads=32, intermediate=8192, vocabulary=128_256,
        num_total=1_235_814_400, num_trainable=270_000_000, num_frozen=1_235_814_400, num_layer=60_821_504, frozen_bytes=2,
        residual_bytes=4, compute_bytes=2, lora_rank=16, lora_reads={"attention": 3, "output": 1, "mlp": 0, "product": 0},
        trains_norms=True, trains_head=True, cost=ModelCost(1_235_000_000, 270_000_000, 16, 32, 8, 64),
        windows=tuple((layer, None) for layer in range(16)),
    )  # fmt: skip


def test_each_memory_feature_saves_what_it_is_for() -> None:
    shape, tokens = one_billion(), 32_768
    plain = predict_memory(shape, TrainingParams(), tokens, num_workers=4, cuda=True)
    sharded = predict_memory(shape, TrainingParams(parallelism="fsdp"), tokens, num_workers=4, cuda=True)
    assert sharded.optimizer == plain.optimizer / 4
    assert sharded.gradients == plain.gradients / 4
    assert sharded.total < plain.total
    kept = predict_memory(shape, TrainingParams(gradient_checkpointing=False), tokens)
    checkpointed = predict_memory(shape, TrainingParams(), tokens)
    offloaded = predict_memory(shape, TrainingParams(activation_offload=True), tokens)
    assert kept.activations > 5 * checkpointed.activations
    assert offloaded.activations < checkpointed.activations
    assert predict_memory(shape, TrainingParams(optimizer="adamw_8bit"), tokens).optimizer == plain.optimizer / 4
    assert plain.overhead > 0 == checkpointed.overhead


@given(st.integers(8, 200), st.integers(1, 16))
def test_the_largest_micro_batch_fits_and_the_next_does_not(gigabytes: int, most: int) -> None:
    shape, row = one_billion(), 8192
    params = PipelineParams.model_validate(
        {
            "run_name": "one",
            "corpus": {"sources": ["x"]},
            "model": {"base": "demo", "target_length": row},
            "ray": {"use_gpu": True},
        }
    )
    rows = largest_micro_batch(params, shape, params.training, gigabytes * 1e9, most=most)
    limit = 0.97 * gigabytes * 1e9
    assert 0 <= rows <= most
    if rows:
        assert predict_memory(shape, params.training, rows * row, cuda=True).total <= limit
    if rows < most:
        assert predict_memory(shape, params.training, (rows + 1) * row, cuda=True).total > limit


def test_what_fits_is_asked_with_what_cut_rows_need(params: PipelineParams, shape: TrainingShape) -> None:
    """Of 3 workers that 2 key-value heads do not divide, the last holds the keys and values of the row."""
    ray = params.ray.model_copy(update={"num_workers": 3, "sequence_workers": 3})
    params = with_training(params, gradient_checkpointing=True, attention_outputs="recomputed").model_copy(update={"ray": ray})
    peak = memory_of_worker(params, shape, 8e9).estimate.total
    alone = predict_memory(shape, params.training, memory_of_worker(params, shape, 8e9).tokens, num_workers=3).total
    assert peak > alone
    between = (peak + alone) / 2 / 0.97
    assert largest_micro_batch(params, shape, params.training, between, most=1) == 0
    assert largest_micro_batch(params, shape, params.training, peak / 0.96, most=1) == 1
    assert most_kept_layers(params, shape, params.training, between) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["QUICK", "QUICK_HYBRID"])
def test_a_real_step_takes_what_was_foreseen(name: str) -> None:
    """One case of the benchmark, trained in a process of its own, at the promised 15 %."""
    from benchmarks import memory

    row = memory.measure(getattr(memory, name))
    assert row["measured_bytes"] > 100e6
    assert 0.85 < row["ratio"] < 1.15, row


def test_kept_outputs_of_attention_take_what_the_formula_says_and_are_kept_only_where_they_fit() -> None:
    shape, tokens = one_billion(), 100_000
    plain = TrainingParams(attention_outputs="recomputed")
    kept = TrainingParams(attention_outputs="kept")
    less, more = (predict_memory(shape, training, tokens).total for training in (plain, kept))
    one_layer = tokens * attention_bytes(shape)
    assert (shape.num_layers - 1) * one_layer <= more - less <= shape.num_layers * one_layer
    assert keeping_attention_fits(shape, plain, tokens, 1.01 * more / SHARE_FOR_KEEPING)
    assert not keeping_attention_fits(shape, plain, tokens, 0.99 * more / SHARE_FOR_KEEPING)


def test_auto_keeps_outputs_of_attention_only_in_recomputed_whole_rows(params: PipelineParams, shape: TrainingShape) -> None:
    params = with_training(params, gradient_checkpointing=True)
    assert keeps_attention_within(params, shape, 24e9)
    assert not keeps_attention_within(params, shape, 1e6)
    for changes in ({"gradient_checkpointing": False}, {"activation_offload": True}, {"compile_layers": True}):
        assert not keeps_attention_within(with_training(params, **changes), shape, 24e9)
    assert not keeps_attention_within(params, replace(shape, attention_dropout=True), 24e9)


def test_the_peak_of_a_plan_has_the_outputs_that_auto_keeps(params: PipelineParams, shape: TrainingShape) -> None:
    params = with_training(params, gradient_checkpointing=True)
    kept, recomputed = (with_training(params, attention_outputs=choice) for choice in ("kept", "recomputed"))
    for available, chosen in ((24e9, kept), (1e6, recomputed)):
        assert as_trained(params, shape, available) == chosen
        assert memory_of_worker(params, shape, available) == memory_of_worker(chosen, shape, available)
    more, less = (memory_of_worker(params, shape, available).estimate.total for available in (24e9, 1e6))
    assert more - less >= (shape.num_layers - 1) * params.row_tokens * attention_bytes(shape)


def test_a_worker_takes_its_part_of_a_row_and_a_cpu_offloads_nothing(params: PipelineParams, shape: TrainingShape) -> None:
    params = with_training(params, gradient_checkpointing=True, attention_outputs="recomputed", s2_group_size=32)
    whole = memory_of_worker(params, shape, 8e9)
    sharing = params.model_copy(update={"ray": params.ray.model_copy(update={"sequence_workers": 2})})
    part = memory_of_worker(sharing, shape, 8e9)
    assert (whole.row_tokens, part.row_tokens) == (params.row_tokens, params.row_tokens // 2)
    assert part.estimate != whole.estimate
    offloading = with_training(params, activation_offload=True)
    assert memory_of_worker(offloading, shape, 8e9).estimate == whole.estimate
