"""LongCE: which targets are compared with what, and weights against predictions made one context at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.long_ce import LongCEWeights, short_windows
from ray_jobs.finetune.training.lora import trainable
from ray_jobs.finetune.training.loss import next_token_targets
from ray_jobs.finetune.training.objective import Objective
from ray_jobs.finetune.training.training_model import build_model
from tests.ray_jobs.finetune.training_example import CPU, Rows, make_params, packed, write_base

ROW = Rows([packed(10, 60, 26)])


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)


@settings(max_examples=80)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.integers(2, 40))
def test_each_long_target_is_scored_once_with_half_a_window_or_more(lengths, window):
    parts = short_windows(np.array(lengths), window)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    offset = np.concatenate([np.arange(n) for n in lengths])
    places = np.concatenate([part.places for part in parts])
    assert sorted(places.tolist()) == [i for i, at in enumerate(offset) if window <= at + 1 < lengths[owner[i]]]
    for part in parts:
        joined = np.array([i for a, b in part.ranges for i in range(a, b)], int)
        starts = np.array([a for a, b in part.ranges for _ in range(a, b)], int)
        assert joined[part.places_in_windows].tolist() == part.places.tolist()
        context = part.places - starts[part.places_in_windows] + 1
        assert all(window // 2 <= n < window for n in context)
        assert all(owner[a] == owner[b - 1] for a, b in part.ranges)
        assert len(joined) <= sum(n for n in lengths if n > window)


def reference(model, batch, window, most):
    """Every target on its own: its window is run alone by the plain model, its whole context in training mode."""
    targets = next_token_targets(batch.input_ids[0], batch.position_ids[0])
    causal_lm = model.get_base_model()

    def loss(ids, positions, target):
        logits = causal_lm(input_ids=ids, position_ids=positions, use_cache=False).logits[0, -1]
        return -logits.log_softmax(-1)[target].item()

    weights = []
    with torch.no_grad():
        logits = causal_lm.train()(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits[0]
        for place, target in enumerate(targets.tolist()):
            position = int(batch.position_ids[0, place])
            if target == -100 or position + 1 < window:
                weights.append(1.0)
                continue
            stride = (window + 1) // 2
            first = (position + 1 - window) // stride * stride + stride  # start of the window whose second half has the target
            start = place - position + first
            ids = batch.input_ids[:, start : place + 1]
            causal_lm.eval()
            short = loss(ids, torch.arange(ids.shape[1])[None], target)
            causal_lm.train()
            whole = -logits[place].log_softmax(-1)[target].item()
            weights.append(min(math.exp(short - whole), most))
    return torch.tensor(weights)


@pytest.mark.parametrize("window", [16, 9])
def test_weights_and_gradients_equal_the_slow_reference(base, window):
    params = make_params(base, loss_weighting="long_ce")
    model = build_model(params, CPU)
    for name, weight in trainable(model):  # LoRA that is not zero, so that training and base differ
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    objective = Objective(model, params.training).train()
    batch = read_micro_batch(ROW, [0], CPU)
    most = 1.1
    expected = reference(model, batch, window, most)
    assert all(kind.any() for kind in ((expected > 1) & (expected < 1.1), expected == torch.tensor(most), expected < 0.98))
    found = objective(batch, LongCEWeights(window, max_weight=most))
    targets = next_token_targets(batch.input_ids[0], batch.position_ids[0])
    torch.testing.assert_close(found.weights, expected[targets != -100].sum(), rtol=1e-4, atol=1e-4)
    found.weighted.backward()
    gradients = [p.grad.clone() for _, p in trainable(model)]
    model.zero_grad()
    logits = model.get_base_model()(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits[0]
    losses = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
    (losses * expected).sum().backward()
    torch.testing.assert_close(found.weighted, (losses * expected).sum(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.plain, losses.sum(), rtol=1e-5, atol=1e-3)
    for ours, (_, parameter) in zip(gradients, trainable(model), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-3, atol=1e-3)


def test_bf16_weights_get_gradients_after_a_pass_without_any(base):
    """The pass for the short contexts casts the same weights under autocast; a kept cast would have no gradient."""
    gradients = {}
    for weighting in ("none", "long_ce"):
        params = make_params(base, precision="bf16", gradient_checkpointing=False)
        model = build_model(params, CPU)
        objective = Objective(model, params.training).train()
        batch = read_micro_batch(ROW, [0], CPU)
        loss = objective(batch) if weighting == "none" else objective(batch, LongCEWeights(16, max_weight=1.000001)).weighted
        loss.backward()
        gradients[weighting] = {name: p.grad for name, p in trainable(model)}
    for name, plain in gradients["none"].items():
        assert gradients["long_ce"][name] is not None, name
        assert bool(gradients["long_ce"][name].any()) == bool(plain.any()), name


def test_short_documents_need_no_second_pass():
    batch = read_micro_batch(Rows([packed(10, 12)]), [0], CPU)

    def refused(_):
        raise AssertionError("a second pass was made")

    weigh = LongCEWeights(16).of_batch(batch, refused)
    assert weigh(slice(2, 7), torch.ones(5)).tolist() == [1.0] * 5
    asked = []
    LongCEWeights(16, always=True).of_batch(batch, lambda joined: asked.append(joined) or torch.zeros(1))
    assert len(asked) == 2
