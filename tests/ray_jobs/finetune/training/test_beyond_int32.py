"""Tensors of more than 2^31 elements: 555,000 tokens of 4,096 channels, a size at which a public recipe crashes.

Their zeros are memory that is only promised, never touched, so they cost a few megabytes; what counts is at the far end.
"""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.finetune.segments import Segments
from ray_jobs.finetune.sequence_parallel.exchange import Exchange, Link
from ray_jobs.finetune.sequence_parallel.halo import pieces
from ray_jobs.finetune.training.chunked_loss import IGNORED, LinearCrossEntropy
from ray_jobs.finetune.training.loss import _liger_kernel
from ray_jobs.finetune.training.tiled_mlp import _tiled

TOKENS, WIDTH = 555_000, 4096
CHUNK = 16_384


@pytest.fixture(scope="module")
def hidden() -> torch.Tensor:
    """Bfloat16 [TOKENS, WIDTH], zero but for the last token's ones."""
    untouched = torch.from_numpy(np.zeros((TOKENS, WIDTH), np.int16)).view(torch.bfloat16)
    assert untouched.numel() > 2**31
    untouched[-1] = 1
    return untouched


@pytest.mark.slow
def test_the_loss_and_its_gradient_reach_the_last_token(hidden: torch.Tensor) -> None:
    weight = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0)).div(64).requires_grad_()
    targets = torch.full((TOKENS,), IGNORED)
    targets[-1] = 2
    loss, _, count = LinearCrossEntropy.apply(hidden, weight, None, targets, CHUNK, torch.float32, None)
    loss.backward()
    logits = weight.detach().sum(1)
    assert count == 1
    torch.testing.assert_close(loss.detach(), -logits.log_softmax(0)[2])
    expected = (logits.softmax(0) - torch.eye(4)[2])[:, None].expand(-1, WIDTH)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, expected)


def test_a_tiled_mlp_reaches_the_last_token(hidden: torch.Tensor) -> None:
    class ToOneChannel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(WIDTH))

        def forward(self, tile: torch.Tensor) -> torch.Tensor:
            return tile.float() @ self.weight[:, None]

    mlp, spread = ToOneChannel(), hidden[999::1000]  # fewer tokens, as far apart: less to compute
    out = _tiled(mlp.forward, mlp, 64, spread[None])
    assert out.shape == (1, TOKENS // 1000, 1)
    assert out[0, -1].item() == WIDTH
    assert out[0, :-1].abs().max() == 0
    out.sum().backward()
    assert mlp.weight.grad is not None
    assert mlp.weight.grad.tolist() == [1.0] * WIDTH


class Loopback(Link):
    """A link that keeps what it sends."""

    sent: Any = None

    def send(self, buffer: torch.Tensor, to: int) -> Any:
        type(self).sent = buffer

        class Done:
            def wait(self) -> None:
                pass

        return Done()


def test_a_halo_is_cut_from_the_end_of_a_part(hidden: torch.Tensor) -> None:
    keys = hidden.view(TOKENS, 32, 128)
    segments = Segments(torch.tensor([0, TOKENS - 8, 2 * TOKENS], dtype=torch.int32), (0, TOKENS - 8, 2 * TOKENS))
    found = pieces([segments], (0, TOKENS, 2 * TOKENS))
    call = Exchange(found, [slice(16, 32)], 0, Loopback(0, (0, 1), None))
    call.begin(keys, keys)
    sent = Loopback.sent.view(2, 8, 16, 128)
    assert sent[:, -1].eq(1).all()
    assert sent[:, :-1].eq(0).all()


def test_ligers_kernel_is_given_fewer_elements_than_its_integers_count(
    hidden: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Liger needs a GPU; here a stand-in notes what it is called with."""
    calls = []

    class StandIn:
        def __init__(self, **options: Any) -> None:
            pass

        def __call__(self, weight: Any, part: torch.Tensor, targets: torch.Tensor, bias: Any) -> torch.Tensor:
            calls.append((part.numel(), len(targets)))
            return targets.sum()

    module = ModuleType("liger_kernel.transformers")
    module.LigerFusedLinearCrossEntropyLoss = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    total = _liger_kernel(hidden, torch.zeros(4, WIDTH), None, torch.ones(TOKENS, dtype=torch.int64))
    assert total == TOKENS
    assert all(elements < 2**31 for elements, _ in calls)
    assert sum(tokens for _, tokens in calls) == TOKENS
