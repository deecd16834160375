"""The training loop without Ray: what it sums, what it resumes, what it refuses."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.batches import num_targets, read_micro_batch, rows_of_rank, rows_of_step
from ray_jobs.finetune.extended import load_arm
from ray_jobs.finetune.loop import Worker, build_model, group_size_at, summed_loss, train
from ray_jobs.finetune.lora import trainable
from ray_jobs.finetune.schedule import learning_rate_scale

CPU = torch.device("cpu")
ALONE = Worker(rank=0, world_size=1, device=CPU)


class Rows(list):
    def row(self, index):
        return self[index]

    def chunk_ids(self, index):
        return self[index]["chunk_ids"]


def packed(*lengths, seed=0):
    generator = np.random.default_rng(seed)
    ids = generator.integers(2, 384, sum(lengths)).astype(np.int32)
    return {
        "input_ids": ids,
        "seq_lengths": np.array(lengths, np.int32),
        "chunk_ids": [f"d{seed}:{i}" for i in range(len(lengths))],
    }


ROWS = Rows(packed(*lengths, seed=i) for i, lengths in enumerate([(96,), (40, 56), (10, 20, 30), (90, 6), (64,), (33, 63)]))


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    """A tiny Llama with tied embeddings and a window of 32, saved as a base model folder."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_params(base, **training):
    settings = {"steps": 4, "rows_per_step": 4, "learning_rate": 1e-2, "warmup_steps": 1, "precision": "fp32",
                "validate_every": 2, "validation_rows": 2, "checkpoint_every": 2} | training  # fmt: skip
    return PipelineParams.model_validate(
        {"run_name": "t", "corpus": {"sources": ["x"]}, "model": {"base": str(base), "target_length": 96, "rope_method": "yarn"},
         "training": settings}
    )  # fmt: skip


def run(params, tmp_path, worker=ALONE, resume_from=None, rows=ROWS):
    reports, kept = [], {}

    def report(metrics, directory):
        reports.append(metrics)
        if directory:
            kept[metrics["step"]] = directory.rename(tmp_path / f"{len(kept)}-{metrics['step']}-{resume_from is not None}")

    model = train(params, rows, ROWS, worker, report, resume_from, tmp_path)
    return {name: p.detach().clone() for name, p in trainable(model)}, reports, kept


def test_loss_falls_and_everything_reported_is_finite(base, tmp_path):
    _, reports, _ = run(make_params(base, steps=12, full_weight_learning_rate=1e-2), tmp_path, rows=Rows(ROWS[:2]))
    assert reports[-1]["loss"] < 0.9 * reports[0]["loss"]
    assert all(math.isfinite(v) for r in reports for v in r.values())
    assert {"validation_loss", "s2_validation_loss"} <= reports[-1].keys()
    assert reports[-1]["validation_loss"] != reports[-1]["s2_validation_loss"]  # full and sparse attention were both run


def test_resuming_ends_with_the_same_weights_bit_for_bit(base, tmp_path):
    params = make_params(base, lora_dropout=0.1)
    straight, reports, kept = run(params, tmp_path)
    resumed, later, _ = run(params, tmp_path, resume_from=kept[2])
    assert [r["loss"] for r in later] == [r["loss"] for r in reports[2:]]
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not any(path.suffix in {".pt", ".bin", ".pkl"} for path in kept[4].rglob("*"))


def test_gradients_do_not_depend_on_how_a_step_is_split(base):
    params = make_params(base)
    indices = rows_of_step(0, 4, len(ROWS), seed=0)
    total = num_targets(ROWS, indices)
    gradients = []
    for world_size, micro in ((1, 1), (1, 4), (2, 2), (4, 1)):
        model = build_model(params, CPU).train()
        for rank in range(world_size):
            for rows in rows_of_rank(indices, rank, world_size, micro):
                (summed_loss(model, read_micro_batch(ROWS, rows, CPU), 64) / total).backward()
        gradients.append([p.grad for _, p in trainable(model)])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("rows_per_step", [1, 4, 5])
def test_each_row_is_seen_once_an_epoch(rows_per_step):
    num_rows, steps = 10, 10
    seen = [i for step in range(steps) for i in rows_of_step(step, rows_per_step, num_rows, seed=3)]
    for epoch in range(len(seen) // num_rows):
        assert sorted(seen[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))
    assert seen[:num_rows] != list(range(num_rows))


def test_only_lora_norms_and_embeddings_train_in_float32(base):
    model = build_model(make_params(base), CPU)
    kinds = {name.split(".")[-3 if "lora_" in name else -4] for name, _ in trainable(model)}
    assert kinds == {"lora_A", "lora_B", "embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"}
    assert all(p.dtype == torch.float32 for _, p in trainable(model))
    bare = build_model(make_params(base, train_norms=False, train_embeddings=False), CPU)
    assert all("lora_" in name for name, _ in trainable(bare))


def test_merged_model_equals_the_trained_one_and_stays_tied_after_reload(base, tmp_path):
    params = make_params(base)
    _, _, kept = run(params, tmp_path)
    reports = []
    trained = train(
        params, ROWS, ROWS, ALONE, lambda m, d: reports.append(m), kept[4], tmp_path
    ).eval()  # nothing left to do: only loads
    assert not reports
    merged = load_arm(params, "fine_tuned", kept[4])
    ids = torch.randint(0, 384, (1, 80))
    torch.testing.assert_close(merged(ids).logits, trained(ids).logits, atol=1e-4, rtol=1e-4)
    untouched = load_arm(params, "scaling_only")
    assert (merged(ids).logits - untouched(ids).logits).abs().max() > 1e-2
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    torch.testing.assert_close(again(ids).logits, merged(ids).logits)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_chunks(base, tmp_path):
    broken = AutoModelForCausalLM.from_pretrained(base)
    broken.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("inf")
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(UserError, match=r"step 1: the loss is nan.*d\d:0.*learning_rate"):
        run(make_params(tmp_path / "broken"), tmp_path)


def test_lora_targets_that_match_nothing_are_refused(base):
    with pytest.raises(UserError, match="lora_targets"):
        build_model(make_params(base, lora_targets=("nothing",), train_norms=False, train_embeddings=False), CPU)


@pytest.mark.parametrize("training", [{"attention": "full"}, {"full_attention_steps": 4}])
def test_full_attention_is_what_transformers_computes(base, training):
    params = make_params(base, **training)
    model = build_model(params, CPU).train()
    batch = read_micro_batch(ROWS, [0, 1], CPU)
    ours = summed_loss(model, batch, 64)
    model.get_base_model().set_attn_implementation("sdpa")
    torch.testing.assert_close(ours, summed_loss(model, batch, 64), atol=1e-3, rtol=1e-6)


def test_bf16_autocast_trains_the_same_with_float32_masters(base, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        (tmp_path / precision).mkdir()
        weights, reports, _ = run(make_params(base, precision=precision), tmp_path / precision)
        losses[precision] = [report["loss"] for report in reports]
        assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_the_last_steps_may_train_with_full_attention(base):
    params = make_params(base, full_attention_steps=1)
    assert [group_size_at(step, params) for step in range(4)] == [24, 24, 24, 192]


def test_learning_rate_warms_up_and_falls_to_zero():
    scale = [learning_rate_scale(step, 100, 10, "cosine") for step in range(100)]
    assert scale[0] == pytest.approx(0.1)
    assert scale[9] == scale[10] == 1.0
    assert scale[55] == pytest.approx(0.5)
    assert scale[-1] < 0.01
    assert learning_rate_scale(99, 100, 0, "constant") == 1.0
    assert learning_rate_scale(55, 100, 10, "linear") == pytest.approx(0.5)


def test_the_checkpoint_is_readable_json_and_safetensors(base, tmp_path):
    _, _, kept = run(make_params(base), tmp_path)
    assert json.loads((kept[2] / "cursor.json").read_text()) == {"step": 2}
    assert (kept[4] / "adapter" / "adapter_model.safetensors").is_file()
