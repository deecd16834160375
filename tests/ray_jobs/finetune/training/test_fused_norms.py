"""Fused norms: the formula is found by trying the norm, and a kernel that computes it gives the model's losses and gradients."""

from pathlib import Path

import pytest
import torch

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.attention import register_s2_attention
from ray_jobs.finetune.training.fast_layers import keep_hidden_states_in_bf16
from ray_jobs.finetune.training.fused_norms import fuse_norms
from ray_jobs.finetune.training.lora import add_trainable_weights, check_targets, describe_norm_kernel
from tests.ray_jobs.finetune.training_example import make_params
from tests.tiny_models import tiny_config, tiny_model


@pytest.fixture(autouse=True)
def attention() -> None:
    register_s2_attention()


def kernel(
    hidden: torch.Tensor, weight: torch.Tensor, epsilon: float, added: float, formula: str, in_place: bool
) -> torch.Tensor:
    """What Liger's documentation says that its kernel computes."""
    assert not in_place
    used.append(formula)
    normalised = hidden.float() * torch.rsqrt(hidden.float().pow(2).mean(-1, keepdim=True) + epsilon)
    if formula == "llama":
        return normalised.to(hidden.dtype) * (added + weight)
    return (normalised * (added + weight.float())).to(hidden.dtype)


used: list[str] = []


def step(model: torch.nn.Module, ids: torch.Tensor) -> list[torch.Tensor]:
    """The loss on `ids` [1, tokens], and the gradients."""
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(("name", "formula"), [("llama", "llama"), ("qwen3", "llama"), ("gemma2", "gemma")])
def test_a_kernel_of_its_formula_changes_nothing(name: str, formula: str) -> None:
    used.clear()
    model, ids = tiny_model(name).train(), torch.arange(12)[None]
    for weight in model.parameters():
        if weight.ndim == 1:  # a new norm has weights of 0 or 1
            torch.nn.init.normal_(weight, std=0.3)

    plain = step(model, ids)
    fuse_norms(model, kernel)
    for ours, theirs in zip(step(model, ids), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert set(used) == {formula}


def test_norms_whose_output_is_rounded_are_fused_too() -> None:
    training = TrainingParams(precision="bf16", hidden_states="bf16")
    found = {}
    for fuse in (False, True):
        model = add_trainable_weights(tiny_model("llama"), training)
        keep_hidden_states_in_bf16(model)
        if fuse:
            fuse_norms(model, kernel)
        with torch.autocast("cpu", torch.bfloat16):
            found[fuse] = model(input_ids=torch.arange(12)[None], use_cache=False).logits
    torch.testing.assert_close(found[True], found[False], rtol=2e-2, atol=2e-2)


def test_a_gated_norm_keeps_the_models_own_code(tmp_path: Path) -> None:
    """Qwen3-Next's linear attention has norms that are given a gate too; its folder here has no weights at all."""
    used.clear()
    name = "qwen3-next-linear-attention"
    tiny_config(name, length=32).save_pretrained(tmp_path)
    params = make_params(tmp_path, norm_kernel="liger", lora_targets=("q_proj",))
    check_targets(params)
    told = "Qwen3NextRMSNorm by Liger's kernel; Qwen3NextRMSNormGated by the model's own code, as it is given more than hidden states"
    assert describe_norm_kernel(params) == told
    model, ids = tiny_model(name).train(), torch.arange(12)[None]

    plain = step(model, ids)
    fuse_norms(model, kernel)
    for ours, theirs in zip(step(model, ids), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert set(used) == {"gemma"}


@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2-convolution"])
def test_other_norms_pass_the_check_before_weights_are_loaded(tmp_path: Path, kind: str) -> None:
    tiny_config(kind, length=32).save_pretrained(tmp_path)
    targets = ("q_proj",)
    check_targets(make_params(tmp_path, norm_kernel="liger", lora_targets=targets))


def test_another_formula_and_a_missing_package_are_refused() -> None:
    class OddRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden * self.weight

    with pytest.raises(UserError, match="OddRMSNorm, which is neither Llama's nor Gemma's"):
        fuse_norms(torch.nn.Sequential(OddRMSNorm()), kernel)
    with pytest.raises(UserError, match="has none"):
        fuse_norms(torch.nn.Sequential(torch.nn.LayerNorm(8)), kernel)

    class GatedRMSNorm(OddRMSNorm):
        def forward(self, hidden: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return hidden * gate

    with pytest.raises(UserError, match="has none but GatedRMSNorm, which are given more than hidden states: set it to torch"):
        fuse_norms(torch.nn.Sequential(GatedRMSNorm()), kernel)
    with pytest.raises(UserError, match="needs the package liger_kernel"):
        fuse_norms(tiny_model("llama"))
