"""Layers that carry a state from token to token keep packed documents apart, with their gradients."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from data_schemas.params import TrainingParams
from ray_jobs.finetune.attention import register_s2_attention
from ray_jobs.finetune.hybrids import keep_documents_apart
from ray_jobs.finetune.proof import prove, tiny
from tests.tiny_models import positions, tiny_config

register_s2_attention()
LENGTHS = [1, 13, 7]
hybrids = pytest.mark.parametrize("kind", ["lfm2-convolution", "qwen3-next-linear-attention"])


def hybrid(kind):
    torch.manual_seed(0)
    config = tiny_config(kind)
    config.s2_group_size = 6
    model = AutoModelForCausalLM.from_config(config, attn_implementation="s2").train()
    tiny.make_visible(model)
    return model


def gradients(model, losses):
    model.zero_grad()
    sum(losses).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@hybrids
def test_a_packed_document_comes_out_as_it_does_alone_and_so_do_the_gradients(kind):
    model = hybrid(kind)
    plain = copy.deepcopy(model)
    assert keep_documents_apart(model) == 1
    ids = torch.randint(2, 64, (2, sum(LENGTHS)))
    place = positions(LENGTHS)
    packed = model(input_ids=ids, position_ids=place, use_cache=False).logits
    alone = torch.cat([plain(input_ids=part, use_cache=False).logits for part in ids.split(LENGTHS, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)
    leaking = plain(input_ids=ids, position_ids=place, use_cache=False).logits
    assert (leaking - alone).abs().max() > 1e-2, "the layer itself does not know the borders, or nothing is tested here"
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = model(input_ids=ids, position_ids=place, use_cache=False).logits
    ours, theirs = gradients(model, [again.square().sum()]), gradients(plain, [alone.square().sum()])
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5 * largest, rtol=1e-3, msg=name)


def test_rows_with_different_borders_and_rows_of_one_document():
    model = hybrid("lfm2-convolution")
    plain = copy.deepcopy(model)
    keep_documents_apart(model)
    ids = torch.randint(2, 64, (2, 20))
    place = torch.cat([positions([12, 8]), positions([20])])
    ours = model(input_ids=ids, position_ids=place, use_cache=False).logits
    first = torch.cat([plain(input_ids=part, use_cache=False).logits for part in ids[:1].split([12, 8], dim=1)], dim=1)
    torch.testing.assert_close(ours[:1], first, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours[1:], plain(input_ids=ids[1:], use_cache=False).logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model(input_ids=ids, use_cache=False).logits, plain(input_ids=ids, use_cache=False).logits, atol=1e-5, rtol=1e-5
    )


def test_a_hybrid_is_proven_and_one_whose_layers_cannot_be_kept_apart_is_refused(monkeypatch):
    training = TrainingParams(lora_targets=("all-linear",), precision="fp32")
    config = tiny_config("lfm2-convolution")
    assert prove.prove(config, training, 64, 16).holds
    monkeypatch.setattr(tiny, "keep_documents_apart", lambda model: 0)
    proof = prove.prove(config, training, 64, 16)
    assert proof.failed == "documents"
    assert "of a packed row changes by" in proof.reason
    assert "(it has layers of type conv, full_attention)" in proof.reason
