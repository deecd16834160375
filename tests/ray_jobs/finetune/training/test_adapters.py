"""DoRA, rank-stabilised LoRA, quantised bases and averaged weights: what is trained, resumed and merged."""

import pytest
import torch
from safetensors.torch import load_file

from data_schemas.errors import UserError
from data_schemas.samples import QUANTISED_ARM
from ray_jobs.evaluate.arms import ArmModel
from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.lora import check_targets, is_magnitude, trainable
from ray_jobs.finetune.training.objective import evaluating, summed_loss
from ray_jobs.finetune.training.optimization import build_optimizer
from ray_jobs.finetune.training.training_model import build_model
from tasks.model.extended import load_arm
from tasks.model.quantised_linear import QuantisedLinear
from tests.ray_jobs.finetune import training_example
from tests.ray_jobs.finetune.training_example import CPU, ROWS, run, write_base
from tests.tiny_models import tiny_config


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)


def make_params(base, **changes):
    return training_example.make_params(base, full_attention_layers="none", **changes)  # without the probe of the layers


def trained_model(params, weights):
    """The model in training, with these weights."""
    model = build_model(params, CPU)
    with torch.no_grad():
        for name, weight in trainable(model):
            weight.copy_(weights[name])
    return model


def logits(model):
    batch = read_micro_batch(ROWS, [1], CPU)
    with torch.no_grad():
        return model.eval()(input_ids=batch.input_ids[:, :40], position_ids=batch.position_ids[:, :40]).logits


def test_the_merged_model_computes_what_was_trained(base, tmp_path):
    params = make_params(base, dora=True, rslora=True, lora_targets=("all-linear",))
    weights, reports, kept = run(params, tmp_path)
    assert reports[-1]["loss"] != reports[0]["loss"]
    merged = load_arm(params, "fine_tuned", kept[4])
    assert {type(module) for module in merged.modules() if isinstance(module, torch.nn.Linear)} == {torch.nn.Linear}
    torch.testing.assert_close(logits(merged), logits(trained_model(params, weights)), rtol=1e-4, atol=1e-5)


def test_what_the_parameters_change(base):
    plain, stable, dora = (build_model(make_params(base, **changes), CPU) for changes in ({}, {"rslora": True}, {"dora": True}))
    scale = lambda model: {m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A")}  # noqa: E731
    assert (scale(plain), scale(stable)) == ({32 / 16}, {32 / 16**0.5})
    lengths = {name for name, _ in trainable(dora) if is_magnitude(name)}
    assert {name for name, _ in trainable(dora)} - lengths == {name for name, _ in trainable(plain)}
    assert len(lengths) == 2 * 4  # of each layer's projections
    groups = build_optimizer(dora, make_params(base, weight_decay=0.1).training).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.0]
    batch = read_micro_batch(ROWS, [1], CPU)
    with evaluating(plain, sparse=False), evaluating(dora, sparse=False):
        torch.testing.assert_close(
            summed_loss(dora, batch, 64), summed_loss(plain, batch, 64)
        )  # at the start they are the base


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_a_quantised_base_trains_resumes_and_is_merged_into_the_original(base, tmp_path, precision):
    params = make_params(base, base_precision=precision, lora_dropout=0.1)
    weights, reports, kept = run(params, tmp_path)
    model = trained_model(params, weights)
    held = [module for module in model.modules() if isinstance(module, QuantisedLinear)]
    assert len(held) == 2 * 7
    assert all(not p.requires_grad for module in held for p in module.parameters())
    resumed, later, _ = run(params, tmp_path, resume_from=kept[2])
    assert [r["loss"] for r in later] == [r["loss"] for r in reports[2:]]
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert not any("codes" in name for name in load_file(kept[4] / "state.safetensors"))
    as_trained = ArmModel(params.model_dump_json(), str(tmp_path), str(kept[4])).load(QUANTISED_ARM)
    torch.testing.assert_close(logits(as_trained), logits(model), rtol=1e-4, atol=1e-5)
    published, original = load_arm(params, "fine_tuned", kept[4]), load_arm(params, "base")
    name = "model.layers.0.mlp.up_proj.weight"  # without LoRA
    assert torch.equal(published.get_parameter(name), original.get_parameter(name))
    assert not torch.equal(as_trained.get_parameter(name), original.get_parameter(name))


def test_a_mixture_whose_experts_are_no_linear_layers_is_not_quantised(tmp_path):
    tiny_config("mixtral").save_pretrained(tmp_path)
    params = make_params(tmp_path, base_precision="nf4")
    with pytest.raises(
        UserError, match=r"base_precision nf4 reaches only \d+% of the weights of MixtralForCausalLM.*choose full"
    ):
        check_targets(params.model_copy(update={"model": params.model.model_copy(update={"target_length": 256})}))


def test_the_mean_of_the_last_steps_is_published_and_exact_over_resumption(base, tmp_path):
    every = {"checkpoint_every": 1, "learning_rate": 3e-2, "schedule": "constant"}
    _, _, plain = run(make_params(base, **every), tmp_path)
    params = make_params(base, **every, average_last_steps=3)
    (tmp_path / "mean").mkdir()
    weights, reports, kept = run(params, tmp_path / "mean")
    after = [load_file(plain[step] / "state.safetensors") for step in (2, 3, 4)]
    for name, weight in weights.items():
        expected = sum(one[f"weight.{name}"].double() for one in after) / 3
        torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-8)
    assert reports[-1]["last_weights_validation_loss"] != reports[-1]["validation_loss"]
    adapters = [load_file(path / "adapter" / "adapter_model.safetensors") for path in (plain[4], kept[4])]
    assert any(not torch.equal(adapters[0][key], adapters[1][key]) for key in adapters[0])
    for step in (1, 3):  # before and among the steps that count
        folder = tmp_path / f"from-{step}"
        folder.mkdir()
        resumed, later, _ = run(params, folder, resume_from=kept[step])
        assert later[-1]["validation_loss"] == reports[-1]["validation_loss"]
        assert all(torch.equal(weights[name], resumed[name]) for name in weights)
