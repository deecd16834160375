"""Faster layers compute what the plain ones compute: kept layers exactly, compiled ones to rounding, bfloat16 within its bound."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from data_schemas.params import TrainingParams
from ray_jobs.finetune.attention import register_s2_attention
from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.fast_layers import compile_layers, keep_first_layers, keep_hidden_states_in_bf16, layers_of
from ray_jobs.finetune.training.kept_attention import attention_kernels, checkpoint_options
from ray_jobs.finetune.training.lora import add_trainable_weights, trainable
from ray_jobs.finetune.training.objective import Objective
from tests.tiny_models import positions, tiny_model

BF16_BOUND = 2e-2  # relative: sums of a few hundred roundings to 8 bits


@pytest.fixture(autouse=True)
def plain_attention_again() -> Any:
    yield
    register_s2_attention()


def losses_and_gradients(
    training: TrainingParams, rows: list[list[int]], change: Callable[[Any], None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 [rows], and the gradient of their sum flattened."""
    register_s2_attention()
    base = tiny_model("llama")
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = add_trainable_weights(base, training)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    change(model)
    objective = Objective(model, training).train()
    generator, losses = torch.Generator().manual_seed(0), []
    for lengths in rows:
        ids = torch.randint(0, 64, (1, sum(lengths)), generator=generator)
        loss = objective(MicroBatch(ids, positions(lengths)))
        loss.backward()
        losses.append(loss.detach().double())
    gradients = [p.grad.flatten() for _, p in trainable(model) if p.grad is not None]
    return torch.stack(losses), torch.cat(gradients).double()


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


ROWS = [[19, 4], [7, 7, 9], [30]]


def test_kept_layers_change_nothing() -> None:
    training = TrainingParams(precision="fp32")
    plain = losses_and_gradients(training, ROWS, lambda model: None)
    kept: list[bool] = []

    def keep(model: Any) -> None:
        keep_first_layers(model, 1)
        kept.extend(layer.gradient_checkpointing for layer in layers_of(model))

    changed = losses_and_gradients(training, ROWS, keep)
    assert kept == [False, True]
    assert torch.equal(plain[0], changed[0])
    assert torch.equal(plain[1], changed[1])


def test_hidden_states_in_bfloat16_stay_within_their_rounding() -> None:
    exact = losses_and_gradients(TrainingParams(precision="fp32"), ROWS, lambda model: None)
    training = TrainingParams(precision="bf16")
    today = losses_and_gradients(training, ROWS, lambda model: None)
    seen: set[torch.dtype] = set()

    def narrow(model: Any) -> None:
        keep_hidden_states_in_bf16(model)
        for layer in layers_of(model):
            layer.register_forward_hook(lambda module, inputs, output: seen.add(inputs[0].dtype))

    narrowed = losses_and_gradients(training, ROWS, narrow)
    assert seen == {torch.bfloat16}
    assert relative(narrowed[0], exact[0]) < BF16_BOUND
    assert relative(narrowed[1], exact[1]) < max(BF16_BOUND, 3 * relative(today[1], exact[1]))


def test_compiled_layers_compute_the_same_and_are_compiled_once_for_all_rows() -> None:
    training = TrainingParams(precision="fp32")
    plain = losses_and_gradients(training, ROWS, lambda model: None)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True, automatic_dynamic_shapes=True):
        compiled = losses_and_gradients(training, ROWS, lambda model: compile_layers(model, backend="aot_eager"))
    assert sum(torch._dynamo.utils.counters["frames"].values()) > 0  # it was compiled at all
    assert relative(compiled[0], plain[0]) < 1e-5
    assert relative(compiled[1], plain[1]) < 1e-4


@pytest.mark.parametrize("rows", [ROWS, [[40, 9]]])
def test_kept_outputs_of_attention_change_nothing_and_save_its_second_forward_pass(rows: list[list[int]]) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += func in attention_kernels()
            return func(*args, **(kwargs or {}))

    def counted(keep: bool) -> tuple[int, tuple[torch.Tensor, torch.Tensor]]:
        def change(model: Any) -> None:
            base = model.get_base_model()
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpoint_options(keep))

        with Counter() as counter:
            found = losses_and_gradients(TrainingParams(precision="fp32"), rows, change)
        return counter.calls, found

    (twice, plain), (once, kept) = counted(False), counted(True)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(kept, plain, strict=True))
    assert twice == 2 * once > 0
