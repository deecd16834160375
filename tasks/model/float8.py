"""Frozen weights in 8-bit floats (e4m3 of Micikevicius et al. 2022, arXiv 2209.05433), with a float32 scale for each output channel.

A product rounds its inputs too, with a scale for each token, and multiplies 8-bit by 8-bit: on a GPU with units for them by
`torch._scaled_mm`, elsewhere with the same rounded values in the inputs' own precision. The gradient of the inputs is that of the rounded
weight, and passes the rounding of the inputs unchanged.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear as dense_product

from data_schemas.devices import FP8_CAPABILITY, Gpu, refuse_without_fp8

LARGEST = 448.0  # of e4m3
_UNIT = 16  # torch._scaled_mm needs multiples of it


def rounded(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(8-bit values [..., n], float32 scale of each row [..., 1]): each row's largest becomes the largest of e4m3."""
    wide = values.float()
    scale = (wide.abs().amax(-1, keepdim=True) / LARGEST).clamp(min=1e-12)
    return (wide / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


def held_in_float8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is held of `weight` [out, in]: the codes as bytes, which every library moves and shards."""
    codes, scales = rounded(weight.detach())
    return {"codes": codes.view(torch.uint8), "scales": scales.flatten()}


def restored_from_float8(codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight [out, in] of `codes` [out, in] and `scales` [out]."""
    return (codes.view(torch.float8_e4m3fn).float() * scales[:, None]).to(dtype)


def float8_product(inputs: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """inputs [..., in] times the weight [out, in], plus bias [out], in the inputs' type."""
    small, scale = rounded(inputs)
    if not has_units(inputs, codes):
        return dense_product((small.float() * scale).to(inputs.dtype), restored_from_float8(codes, scales, inputs.dtype), bias)
    output: torch.Tensor = torch._scaled_mm(
        small.flatten(0, -2), codes.view(torch.float8_e4m3fn).T, scale_a=scale.flatten(0, -2), scale_b=scales[None],
        out_dtype=torch.bfloat16,
    )  # fmt: skip
    output = output.unflatten(0, inputs.shape[:-1]).to(inputs.dtype)
    return output if bias is None else output + bias


def has_units(inputs: torch.Tensor, codes: torch.Tensor) -> bool:
    """Whether the GPU multiplies 8-bit floats of these sizes."""
    if inputs.device.type != "cuda" or any(size % _UNIT for size in codes.shape):
        return False
    return torch.cuda.get_device_capability(inputs.device) >= FP8_CAPABILITY


def refuse_missing_units(device: torch.device) -> None:
    """UserError for a GPU without units for 8-bit floats: it would compute the same values, but slower than with the full weights."""
    if device.type == "cuda":
        refuse_without_fp8(Gpu(torch.cuda.get_device_name(device), 0, torch.cuda.get_device_capability(device)))
