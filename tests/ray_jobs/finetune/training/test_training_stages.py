"""A training stage goes on from the weights of the one before, with a fresh optimizer, and resumes exactly."""

import pytest
import torch

from data_schemas.errors import UserError
from ray_jobs.finetune.training.loop import set_up
from ray_jobs.finetune.training.lora import trainable
from tasks.model.extended import ADAPTER_DIR, load_arm
from tests.ray_jobs.finetune import training_example
from tests.ray_jobs.finetune.training_example import ALONE, run, write_base


def make_params(base, **changes):
    return training_example.make_params(base, full_attention_layers="none", **changes)


@pytest.mark.parametrize("kind", [{"tied": True}, {"tied": False, "dora": True}])
def test_a_stage_starts_with_the_weights_of_the_one_before(tmp_path, tokenizer, kind):
    tied = kind.pop("tied")
    base = write_base(tmp_path / "base", tokenizer, tied=tied)
    first = make_params(base, steps=2, **kind)
    model = first.model.model_copy(update={"target_length": 64})
    shorter = first.model_copy(update={"model": model})
    weights, _, kept = run(shorter, tmp_path)
    objective, optimizer = set_up(first, ALONE, kept[2] / ADAPTER_DIR)
    assert not optimizer.state
    for name, weight in trainable(objective.model):
        torch.testing.assert_close(weight.detach(), weights[name], rtol=0, atol=0)
    assert objective.model.get_base_model().config.max_position_embeddings == 96


def test_a_killed_stage_resumes_to_the_same_weights_and_one_adapter_is_merged(tmp_path, tokenizer):
    base = write_base(tmp_path / "base", tokenizer, tied=True)
    params = make_params(base)
    first, _, before = run(make_params(base, steps=2), tmp_path)
    start = before[2] / ADAPTER_DIR
    (tmp_path / "second").mkdir()
    weights, reports, kept = run(params, tmp_path / "second", start=start)
    assert any(not torch.equal(weights[name], first[name]) for name in first)
    resumed, later, _ = run(params, tmp_path / "second", resume_from=kept[2], start=start)
    assert [r["loss"] for r in later] == [r["loss"] for r in reports[2:]]
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)
    merged = load_arm(params, "fine_tuned", kept[4])
    embeddings = next(value for name, value in weights.items() if "embed_tokens" in name)
    torch.testing.assert_close(merged.get_input_embeddings().weight.detach(), embeddings)


def test_a_stage_with_the_rows_of_the_one_before_goes_on_after_them(tmp_path, tokenizer):
    base = write_base(tmp_path / "base", tokenizer, tied=True)
    steady = {"schedule": "constant", "warmup_steps": 0, "rows_per_step": 2}
    folders = {name: tmp_path / name for name in ("whole", "first", "from 0", "from 4")}
    for folder in folders.values():
        folder.mkdir()
    _, whole, _ = run(make_params(base, steps=3, **steady), folders["whole"])
    _, _, before = run(make_params(base, steps=2, **steady), folders["first"])
    start, one = before[2] / ADAPTER_DIR, make_params(base, steps=1, **steady)
    losses = {read: run(one, folders[f"from {read}"], start=start, rows_read=read)[1][0]["loss"] for read in (0, 4)}
    assert losses[4] == pytest.approx(whole[2]["loss"], rel=1e-6)
    assert losses[0] != pytest.approx(whole[2]["loss"], rel=1e-3), "else the rows make no difference here"


def test_an_adapter_of_another_shape_is_refused(tmp_path, tokenizer):
    base = write_base(tmp_path / "base", tokenizer, tied=True)
    _, _, kept = run(make_params(base, steps=2), tmp_path)
    for changes in ({"lora_rank": 8}, {"lora_targets": ("q_proj",)}, {"train_norms": False}):
        with pytest.raises(UserError, match="was trained with other weights"):
            set_up(make_params(base, **changes), ALONE, kept[2] / ADAPTER_DIR)
