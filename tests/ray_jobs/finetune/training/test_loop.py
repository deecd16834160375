"""The training loop without Ray: what it sums, what it resumes, what it refuses."""

import gc
import json
import math
import shutil
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from benchmarks.extension_run import keep
from data_schemas.errors import UserError
from ray_jobs.finetune.full_layers import FULL_LAYERS_FILE, FullLayers, ranked, read_full_layers, write_full_layers
from ray_jobs.finetune.training.batches import num_targets, read_micro_batch, rows_of_rank, rows_of_step
from ray_jobs.finetune.training.checkpoint import complete_step, first_complete, last_complete
from ray_jobs.finetune.training.loop import train
from ray_jobs.finetune.training.lora import trainable
from ray_jobs.finetune.training.objective import Objective, group_size_at, summed_loss
from ray_jobs.finetune.training.optimization import build_optimizer, clip_gradients, learning_rate_scale
from ray_jobs.finetune.training.steps import train_step
from ray_jobs.finetune.training.training_model import build_model
from tasks.model.extended import load_arm
from tests.ray_jobs.finetune.training_example import ALONE, CPU, ROWS, Rows, make_params, packed, run, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)


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


@pytest.mark.parametrize("memory", [{"gradient_checkpointing": False}, {}, {"activation_offload": True}])
def test_tiled_mlps_have_every_gradient(base, memory):
    gradients = []
    for tile in (None, 16):
        params = make_params(base, lora_targets=["all-linear"], mlp_tile_tokens=tile, **memory)
        model = build_model(params, CPU).double().train()
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # zeros at first, which would hide lora_A's gradients
                torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(len(name)))
        summed_loss(model, read_micro_batch(ROWS, [0, 2], CPU), 64).backward()
        gradients.append({name: weight.grad for name, weight in trainable(model)})
    assert any("mlp" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-12, rtol=1e-12)


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


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_documents(base, tmp_path):
    broken = AutoModelForCausalLM.from_pretrained(base)
    broken.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("inf")
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(UserError, match=r"step 1: the loss is nan.*on documents d\d(, d\d)*; lower training.learning_rate"):
        run(make_params(tmp_path / "broken", full_attention_layers="none"), tmp_path)
    with pytest.raises(UserError, match=r"not finite in the probe .*try training.precision fp32, or check the base"):
        run(make_params(tmp_path / "broken", full_attention_layers="auto"), tmp_path)


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
    cursor = json.loads((kept[2] / "cursor.json").read_text())
    assert cursor["step"] == 2
    assert cursor["files"] == {n: (kept[2] / n).stat().st_size for n in (FULL_LAYERS_FILE, "state.safetensors")}
    assert (kept[4] / "adapter" / "adapter_model.safetensors").is_file()
    is_known_when_torn(kept, tmp_path / "torn")


def is_known_when_torn(kept, folder):
    """A final checkpoint that lacks any one of its files, or a part of one, is passed over for the one before."""
    before, final = folder / "checkpoint_1", folder / "checkpoint_2"
    shutil.copytree(kept[2], before)
    shutil.copytree(kept[4], final)
    assert last_complete(folder) == first_complete(None, final, before) == final
    files = [path.relative_to(kept[4]) for path in kept[4].rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {
        "state.safetensors",
        "cursor.json",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    for file in files:
        whole_file = (final / file).read_bytes()
        (final / file).write_bytes(whole_file[: len(whole_file) // 2])
        assert last_complete(folder) == first_complete(final, before) == before, file
        (final / file).unlink()
        assert last_complete(folder) == first_complete(final, before) == before, file
        (final / file).write_bytes(whole_file)
    shutil.rmtree(final / "adapter")
    assert last_complete(folder) == before
    assert first_complete(final, None) is None


def test_a_benchmark_s_training_keeps_a_complete_checkpoint_at_every_moment(tmp_path, monkeypatch):
    """Whatever call fails while one is kept, a complete one is there."""
    real_rename, real_rmtree = Path.rename, shutil.rmtree

    def write(folder, step):
        folder.mkdir()
        save_file({"a": torch.zeros(1)}, folder / "state.safetensors")
        (folder / "cursor.json").write_text(json.dumps({"step": step}))
        return folder

    assert keep(write(tmp_path / "new", 1), tmp_path, 1) == last_complete(tmp_path)

    def killed(*_, **__):
        raise KeyboardInterrupt

    for step, name in ((2, "rename"), (3, "rmtree")):
        monkeypatch.setattr(Path, "rename", killed if name == "rename" else real_rename)
        monkeypatch.setattr(shutil, "rmtree", killed if name == "rmtree" else real_rmtree)
        with pytest.raises(KeyboardInterrupt):
            keep(write(tmp_path / f"new{step}", step), tmp_path, step)
        assert complete_step(last_complete(tmp_path)) in (1, step)
    monkeypatch.undo()
    keep(write(tmp_path / "new4", 4), tmp_path, 4)
    assert [path.name for path in tmp_path.glob("checkpoint_*")] == ["checkpoint_000004"]


def micro_gradients(params, model):
    objective = Objective(model, params.training).train()
    (objective(read_micro_batch(ROWS, [1, 2], CPU)) / 100).backward()
    return [p.grad for _, p in trainable(model)]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointing_and_offloading_change_no_gradient(base, dropout):
    gradients = []
    for memory in ({"gradient_checkpointing": False}, {}, {"activation_offload": True}):
        params = make_params(base, lora_dropout=dropout, **memory)
        model = build_model(params, CPU)
        torch.manual_seed(7)
        gradients.append(micro_gradients(params, model))
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.slow
def test_offloading_lets_go_of_the_layers_inputs(base, offload, monkeypatch):
    monkeypatch.setattr("ray_jobs.finetune.training.offloading._FEWEST_BYTES", 0)
    params = make_params(base, activation_offload=offload)
    model = build_model(params, CPU).train()
    inputs = []
    for layer in model.get_base_model().model.layers:
        layer.register_forward_pre_hook(lambda _, args: inputs.append(weakref.ref(args[0].untyped_storage())))
    loss = summed_loss(model, read_micro_batch(ROWS, [0], CPU), 64)
    gc.collect()
    alive = [stored() is not None for stored in inputs]
    assert alive == [not offload] * 2
    loss.backward()
    assert all(p.grad.isfinite().all() for _, p in trainable(model))


def test_offloading_without_checkpointing_is_refused(base):
    with pytest.raises(ValueError, match=r"activation_offload needs training\.gradient_checkpointing"):
        make_params(base, activation_offload=True, gradient_checkpointing=False)


def test_clipping_bounds_the_norm_that_the_optimizer_sees(base):
    weights = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2))]
    for weight, values in zip(weights, ([3.0, 0.0, 0.0], [0.0, 4.0]), strict=True):
        weight.grad = torch.tensor(values)
    assert clip_gradients(weights, 1.0) == pytest.approx(5.0)
    assert [w.grad.tolist() for w in weights] == [pytest.approx([0.6, 0, 0]), pytest.approx([0, 0.8])]
    assert clip_gradients(weights, 2.0) == pytest.approx(1.0)
    assert weights[0].grad.tolist() == pytest.approx([0.6, 0, 0])  # a norm below the bound is left alone

    params = make_params(base, max_grad_norm=1e-3)
    model = build_model(params, CPU)
    metrics = train_step(
        Objective(model, params.training).train(), build_optimizer(model, params.training), params, ROWS, [0, 1], 0, ALONE
    )
    assert metrics["grad_norm"] > 0.1
    after = torch.stack([p.grad.norm() for _, p in trainable(model)]).norm()
    assert after == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("rows", "named"), [(1, "d2"), (2, "d2, d3")])
def test_only_the_micro_batch_that_failed_is_named_and_no_weight_moves(base, rows, named):
    params = make_params(base, micro_batch_rows=rows)
    model = build_model(params, CPU)
    poisoned = Rows(packed(20, 30, seed=i) for i in range(4))
    for row in poisoned:  # id 383 stands in one document's row alone
        row["input_ids"] = row["input_ids"] % 300 + 2
    poisoned[2]["input_ids"][5] = 383
    model.get_base_model().get_input_embeddings().register_forward_hook(
        lambda _, args, out: out * torch.where(args[0] == 383, math.nan, 1.0)[..., None]
    )
    before = [p.detach().clone() for _, p in trainable(model)]
    optimizer = build_optimizer(model, params.training)
    with pytest.raises(UserError, match=f"on documents {named}; lower"):
        train_step(Objective(model, params.training).train(), optimizer, params, poisoned, [0, 1, 2, 3], 0, ALONE)
    assert all(torch.equal(a, p.detach()) for a, (_, p) in zip(before, trainable(model), strict=True))


def test_8bit_adamw_needs_its_package(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    training = make_params(base).training.model_copy(update={"optimizer": "adamw_8bit"})
    with pytest.raises(UserError, match="adamw_8bit needs the package bitsandbytes"):
        build_optimizer(build_model(make_params(base), CPU), training)


def test_a_checkpoint_out_of_turn_is_saved_when_asked_for(base, tmp_path):
    asked = iter([True, False, False, False])
    _, _, kept = run(make_params(base, checkpoint_every=4), tmp_path, save_now=lambda: next(asked))
    assert sorted(kept) == [1, 4]
    _, later, _ = run(make_params(base, checkpoint_every=4), tmp_path, resume_from=kept[1])
    assert [line["step"] for line in later] == [2, 3, 4]


def differs(ours, theirs):
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def test_all_layers_or_all_documents_in_full_train_what_full_attention_does(base, tmp_path):
    def trained(name, rows=ROWS, **changes):
        (tmp_path / name).mkdir()
        weights, _, kept = run(make_params(base, **{"full_attention_layers": "none"} | changes), tmp_path / name, rows=rows)
        return weights, kept[4]

    marked = Rows(row | {"full_attention": np.ones(len(row["seq_lengths"]), bool)} for row in ROWS)
    (full, _), (groups, without) = trained("full", attention="full"), trained("groups")
    assert not (without / FULL_LAYERS_FILE).exists()
    assert differs(groups, full) > 1e-3
    everything = (
        trained("list", full_attention_layers=[0, 1]),
        trained("each", full_attention_every=1),
        trained("all", marked),
    )
    for weights, _ in everything:
        assert differs(weights, full) < 1e-4
    half, kept = trained("half", full_attention_every=2)
    assert read_full_layers(kept).layers == (1,)
    assert min(differs(half, full), differs(half, groups)) > 1e-4


def test_heads_found_by_the_probe_are_kept_and_a_resumed_run_takes_them(base, tmp_path):
    params = make_params(base, full_attention_heads="auto")
    straight, _, kept = run(params, tmp_path)
    found = read_full_layers(kept[2])
    assert (len(found.heads), len(found.scores), found.layers) == (1, 4, ())
    assert found.heads == (divmod(ranked(found.scores)[0], 2),)
    resumed, _, later = run(params, tmp_path, resume_from=kept[2])
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert read_full_layers(later[4]) == found


def test_layers_found_by_the_probe_are_kept_and_a_resumed_run_takes_them(base, tmp_path):
    params = make_params(base, full_attention_layers="auto")
    straight, _, kept = run(params, tmp_path)
    found = read_full_layers(kept[2])
    assert len(found.scores) == 2
    assert found.layers == (ranked(found.scores)[0],)
    resumed, _, later = run(params, tmp_path, resume_from=kept[2])
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert read_full_layers(later[4]) == found
    other = FullLayers((1 - found.layers[0],), found.scores, found.loss)  # not probed again: what is kept counts
    write_full_layers(kept[2], other)
    (tmp_path / "other").mkdir()
    resumed, _, later = run(params, tmp_path / "other", resume_from=kept[2])
    assert read_full_layers(later[4]) == other
    assert differs(straight, resumed) > 1e-5
