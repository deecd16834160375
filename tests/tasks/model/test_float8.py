"""Products with weights in 8-bit floats: their error is that of rounding to 4 bits of mantissa, and gradients are of the rounded weight."""

import pytest
import torch

from tasks.model.float8 import float8_product, held_in_float8, restored_from_float8, rounded
from tasks.model.quantised_linear import QuantisedLinear, quantised

LAST_BIT = 2**-4  # of e4m3, relative: half of the step between neighbours


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_each_value_is_rounded_by_at_most_half_a_step(size: float) -> None:
    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(0)) * size
    weight[0] = 0.0
    held = held_in_float8(weight)
    found = restored_from_float8(held["codes"], held["scales"], torch.float32)
    largest = weight.abs().amax(-1, keepdim=True)
    assert ((found - weight).abs() <= LAST_BIT * weight.abs() + 2**-10 * largest / 448 + 1e-30).all()
    torch.testing.assert_close(found.abs().amax(-1, keepdim=True), largest)  # the largest of a row is exact


def test_a_product_rounds_both_sides_and_its_gradient_is_of_the_rounded_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(64, 48).requires_grad_(False)
    layer = QuantisedLinear(linear, "fp8", quantised(linear.weight, "fp8"))
    inputs = torch.randn(2, 5, 64, generator=generator).requires_grad_()
    found = layer(inputs)
    values, scales = rounded(inputs.detach())
    exact = torch.nn.functional.linear((values.float() * scales), layer.weight, linear.bias)
    torch.testing.assert_close(found, exact)
    plain = linear(inputs.detach())
    assert 1e-3 < ((found - plain).norm() / plain.norm()).item() < LAST_BIT
    outer = torch.randn(found.shape, generator=generator)
    found.backward(outer)
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, outer @ layer.weight)


def test_the_kernel_of_gpus_gets_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch._scaled_mm takes row-major inputs, a column-major weight, and one float32 scale for each row and column."""
    import tasks.model.float8 as float8

    def scaled_mm(
        a: torch.Tensor, b: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor, out_dtype: torch.dtype
    ) -> torch.Tensor:
        assert a.dtype == b.dtype == torch.float8_e4m3fn
        assert a.is_contiguous()
        assert b.T.is_contiguous()
        assert scale_a.shape == (len(a), 1)
        assert scale_b.shape == (1, b.shape[1])
        return ((a.float() * scale_a) @ (b.float() * scale_b)).to(out_dtype)

    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))
    inputs, bias = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1)).bfloat16(), torch.ones(48).bfloat16()
    held = held_in_float8(weight)
    expected = float8_product(inputs, held["codes"], held["scales"], bias)
    monkeypatch.setattr(float8, "has_units", lambda *_: True)
    monkeypatch.setattr(torch, "_scaled_mm", scaled_mm)
    found = float8_product(inputs, held["codes"], held["scales"], bias)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0.15)  # one of them rounds its inputs to bfloat16 again
