"""The chunked loss against all logits at once in float64, and its targets against the definition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.finetune.loss import IGNORED, next_token_targets, summed_cross_entropy


def test_no_document_predicts_the_next_ones_first_token():
    ids = torch.tensor([10, 11, 12, 20, 21, 30])
    positions = torch.tensor([0, 1, 2, 0, 1, 0])
    assert next_token_targets(ids, positions).tolist() == [11, 12, IGNORED, 21, IGNORED, IGNORED]


@given(length=st.integers(1, 70), chunk=st.integers(16, 40), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_value_and_gradient_equal_all_logits_at_once(length, chunk, seed):
    torch.manual_seed(seed)
    head = torch.nn.Linear(8, 50, bias=False)
    hidden = torch.randn(length, 8, requires_grad=True)
    targets = torch.where(torch.rand(length) < 0.2, IGNORED, torch.randint(0, 50, (length,)))
    ours = summed_cross_entropy(head, hidden, targets, chunk)
    ours.backward()
    got = hidden.grad.double(), head.weight.grad.double()

    wide = hidden.detach().double().requires_grad_()
    weight = head.weight.detach().double().requires_grad_()
    log_p = (wide @ weight.T).log_softmax(-1)
    theirs = -sum((log_p[i, t] for i, t in enumerate(targets.tolist()) if t != IGNORED), start=log_p.new_zeros(()))
    theirs.backward() if theirs.requires_grad else None
    torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-5)
    for a, b in zip(got, (wide.grad, weight.grad), strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, atol=1e-5, rtol=1e-4)
