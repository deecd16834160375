"""Every kernel of the loss against plain cross entropy in float64, its targets by definition, its memory by measurement."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError
from ray_jobs.finetune.training.chunked_loss import token_losses
from ray_jobs.finetune.training.loss import (
    IGNORED,
    choose_kernel,
    next_token_targets,
    summed_cross_entropy,
    weighted_cross_entropy,
)
from tests.waiting import HANGS_AFTER_S

CPU = torch.device("cpu")
KERNELS = ["chunked"] + ["torch"] * hasattr(F, "linear_cross_entropy")


def test_no_document_predicts_the_next_ones_first_token():
    ids = torch.tensor([10, 11, 12, 20, 21, 30])
    positions = torch.tensor([0, 1, 2, 0, 1, 0])
    assert next_token_targets(ids, positions).tolist() == [11, 12, IGNORED, 21, IGNORED, IGNORED]


def plain(hidden, head, targets):
    """The definition: all logits at once, in float64."""
    log_p = head(hidden).log_softmax(-1)
    return -sum((log_p[i, t] for i, t in enumerate(targets.tolist()) if t != IGNORED), start=log_p.sum() * 0)


def gradients(loss, *tensors):
    return [torch.zeros_like(t) if g is None else g for t, g in zip(
        tensors, torch.autograd.grad(loss * 0.3, tensors, allow_unused=True), strict=True
    )]  # fmt: skip


@given(
    kernel=st.sampled_from(KERNELS), length=st.integers(1, 70), chunk=st.integers(16, 40), bias=st.booleans(),
    wrapped=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=60)
def test_value_and_gradients_equal_all_logits_at_once(kernel, length, chunk, bias, wrapped, seed):
    torch.manual_seed(seed)
    head = torch.nn.Linear(8, 50, bias=bias).double()
    hidden = torch.randn(length, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.where(torch.rand(length) < 0.2, IGNORED, torch.randint(0, 50, (length,)))
    trained = [hidden, *head.parameters()]
    called = torch.nn.Sequential(head) if wrapped and kernel == "chunked" else head  # not plain: recomputed chunks
    ours, theirs = summed_cross_entropy(called, hidden, targets, chunk, kernel), plain(hidden, head, targets)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-10)
    for a, b in zip(gradients(ours, *trained), gradients(theirs, *trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@given(length=st.integers(1, 70), chunk=st.integers(16, 40), wrapped=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_weighted_value_and_gradients_equal_all_logits_at_once(length, chunk, wrapped, seed):
    torch.manual_seed(seed)
    head = torch.nn.Linear(8, 50).double()
    hidden = torch.randn(length, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.where(torch.rand(length) < 0.2, IGNORED, torch.randint(0, 50, (length,)))
    factors = torch.rand(length, dtype=torch.float64) * 3
    trained = [hidden, *head.parameters()]
    called = torch.nn.Sequential(head) if wrapped else head

    def weigh(places, losses):
        assert not losses.requires_grad
        return factors[places] + losses  # a weight may depend on the loss, and gets no gradient

    ours = weighted_cross_entropy(called, hidden, targets, chunk, weigh)
    losses = F.cross_entropy(head(hidden), targets, ignore_index=IGNORED, reduction="none")
    weights = torch.where(targets == IGNORED, 0, factors + losses.detach())
    torch.testing.assert_close(ours.weighted, (losses * weights).sum(), rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(ours.plain, losses.detach().sum(), rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(ours.weights, weights.sum(), rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(token_losses(called, hidden, targets, chunk), losses.detach(), rtol=1e-12, atol=1e-10)
    for a, b in zip(gradients(ours.weighted, *trained), gradients((losses * weights).sum(), *trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_tied_head_gets_both_gradients_and_a_frozen_one_none(kernel):
    torch.manual_seed(0)
    embeddings = torch.nn.Embedding(50, 8, dtype=torch.float64)
    head = torch.nn.Linear(8, 50, bias=False)
    head.weight = embeddings.weight
    ids, targets = torch.randint(0, 50, (2, 40))
    ours = summed_cross_entropy(head, embeddings(ids).tanh(), targets, 16, kernel)
    theirs = plain(embeddings(ids).tanh(), head, targets)
    torch.testing.assert_close(*gradients(ours, head.weight), *gradients(theirs, head.weight), rtol=1e-10, atol=1e-12)
    head.weight.requires_grad_(False)
    hidden = torch.randn(40, 8, dtype=torch.float64, requires_grad=True)
    ours, theirs = summed_cross_entropy(head, hidden, targets, 16, kernel), plain(hidden, head, targets)
    torch.testing.assert_close(*gradients(ours, hidden), *gradients(theirs, hidden), rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(summed_cross_entropy(head, hidden, targets, 16, kernel), theirs)


def test_bf16_products_sum_a_float32_loss():
    """4096 tokens: a sum kept in bfloat16 would be off by up to one part in 256."""
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 500, bias=False)
    hidden, targets = torch.randn(4096, 32, requires_grad=True), torch.randint(0, 500, (4096,))
    with torch.autocast("cpu", torch.bfloat16):
        ours = summed_cross_entropy(head, hidden, targets, 64)
    theirs = F.cross_entropy(head(hidden), targets, reduction="sum")
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    for a, b in zip(gradients(ours, hidden, head.weight), gradients(theirs, hidden, head.weight), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.01 * b.norm()


def test_a_kernel_is_chosen_by_what_is_there():
    auto = {dtype: choose_kernel("auto", True, CPU, dtype) for dtype in (torch.float32, torch.bfloat16)}
    assert auto == {torch.float32: KERNELS[-1], torch.bfloat16: "chunked"}
    assert choose_kernel("auto", False, CPU, torch.float32) == "chunked"
    with pytest.raises(UserError, match=r"loss_kernel is torch, but .*: choose auto or chunked"):
        choose_kernel("torch", False, CPU, torch.float32)
    with pytest.raises(UserError, match="loss_kernel is liger, but"):
        choose_kernel("liger", True, CPU, torch.bfloat16)


MEMORY = """
import resource, sys, torch
from ray_jobs.finetune.training.loss import summed_cross_entropy
torch.set_num_threads(1)
head = torch.nn.Linear(32, 4096, bias=False)
peaks = []
for length in (256, 4096, 8192):
    hidden = torch.randn(length, 32, requires_grad=True)
    summed_cross_entropy(head, hidden, torch.randint(0, 4096, (length,)), 256, sys.argv[1]).backward()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(*peaks)
"""


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.slow
def test_memory_does_not_grow_with_the_logits(kernel):
    """All logits of 8192 tokens are 134 MB; beside one chunk's (4 MB) there are hidden states of 1 MB and their gradients."""
    done = subprocess.run([sys.executable, "-c", MEMORY, kernel], capture_output=True, text=True, timeout=HANGS_AFTER_S)
    assert done.returncode == 0, done.stderr
    one_chunk, half, full = map(int, done.stdout.split())
    assert full - one_chunk < 25
    assert full - half < 15
