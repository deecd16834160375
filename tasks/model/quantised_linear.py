"""Linear layers whose frozen weights are held in 8 or 4 bits while an adapter is trained (QLoRA, Dettmers et al. 2023,
arXiv 2305.14314).

nf4     4-bit codes with a scale for each block of 64 weights; the scales are held in 8 bits, in blocks of 256 (double quantisation)
int8    8-bit codes with a scale for each output channel, as of LLM.int8() (arXiv 2208.07339); inputs stay as they are
fp8     8-bit floats with a scale for each output channel, multiplied as such where the GPU can (`tasks.model.float8`)

bitsandbytes quantises and restores nf4 and int8, on GPUs and CPUs. A product restores one matrix at a time in the precision of
its inputs, and again in the backward pass, so no restored matrix is kept. Everything held is a parameter without a gradient, so
FSDP2 shards it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.functional import linear as dense_product

from data_schemas.errors import UserError
from tasks.model.float8 import float8_product, held_in_float8, restored_from_float8
from tasks.model.optional_imports import bitsandbytes_functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Quantisation = Literal["int8", "nf4", "fp8"]
BLOCK, SCALE_BLOCK = 64, 256
# nf4: half a byte, a byte for each block, and 4 bytes for each block of scales. int8 and fp8: a byte; 4 for each channel are left out.
BYTES_A_WEIGHT: dict[str, float] = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5 + 1 / BLOCK + 4 / (BLOCK * SCALE_BLOCK)}
_FEWEST_REACHED = 0.5
_ROUTERS = {"gate", "router", "shared_expert_gate"}  # of mixtures of experts: small, and they decide


def quantised(weight: torch.Tensor, precision: Quantisation) -> dict[str, torch.Tensor]:
    """What is held of `weight` [out, in], by name, on its device; of a weight without data only the sizes."""
    if _has_no_data(weight):
        return _sizes(weight, precision)
    if precision == "fp8":
        return held_in_float8(weight)
    functional = bitsandbytes_functional()
    if precision == "int8":
        codes, scales, _ = functional.int8_vectorwise_quant(weight.detach().half())
        return {"codes": codes, "scales": scales}
    codes, state = functional.quantize_4bit(
        weight.detach().contiguous(), blocksize=BLOCK, quant_type="nf4", compress_statistics=True
    )
    outer = {"scale_scales": state.state2.absmax, "scale_offset": state.offset.reshape(1)}
    return {"codes": codes.flatten(), "scales": state.absmax} | outer


def restored(
    held: Mapping[str, torch.Tensor], shape: tuple[int, int], precision: Quantisation, dtype: torch.dtype
) -> torch.Tensor:
    """The weight [out, in] that `held` stands for."""
    if _has_no_data(held["codes"]):
        return held["codes"].new_empty(shape, dtype=dtype)
    if precision == "fp8":
        return restored_from_float8(held["codes"], held["scales"], dtype)
    functional, device = bitsandbytes_functional(), held["codes"].device
    if precision == "int8":
        full: torch.Tensor = functional.int8_vectorwise_dequant(held["codes"], held["scales"])
        return full.to(dtype)
    outer = functional.QuantState(
        absmax=held["scale_scales"], code=_scale_codes(device), blocksize=SCALE_BLOCK, dtype=torch.float32
    )
    state = functional.QuantState(
        absmax=held["scales"],
        shape=torch.Size(shape),
        code=functional.get_4bit_type("nf4", device=device),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
        offset=held["scale_offset"][0],
        state2=outer,
    )
    answer: torch.Tensor = functional.dequantize_4bit(held["codes"].view(-1, 1), state)
    return answer


class QuantisedLinear(torch.nn.Linear):
    """A frozen linear layer; `weight` is restored each time it is read, in float32 and without a gradient."""

    def __init__(self, original: torch.nn.Linear, precision: Quantisation, held: Mapping[str, torch.Tensor]) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features, self.precision = original.in_features, original.out_features, precision
        self.held_names = tuple(held)
        for name, part in held.items():
            self.register_parameter(name, torch.nn.Parameter(part, requires_grad=False))
        self.bias = original.bias

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return restored(self._held(), (self.out_features, self.in_features), self.precision, torch.float32)

    def _held(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name).detach() for name in self.held_names}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        device = inputs.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            inputs = inputs.to(torch.get_autocast_dtype(device))
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        shape = (self.out_features, self.in_features)
        output: torch.Tensor = _Product.apply(inputs, bias, shape, self.precision, self.held_names, *self._held().values())
        return output

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, {self.precision}"
        )


class _Product(torch.autograd.Function):
    """inputs [..., in] times the restored weight, plus bias [out]; gradients of inputs and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        bias: torch.Tensor | None,
        shape: tuple[int, int],
        precision: Quantisation,
        names: tuple[str, ...],
        *held: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(*held)
        ctx.made_of = shape, precision, names
        parts = dict(zip(names, held, strict=True))
        if precision == "fp8" and not _has_no_data(inputs):
            return float8_product(inputs, parts["codes"], parts["scales"], bias)
        return dense_product(inputs, restored(parts, shape, precision, inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        shape, precision, names = ctx.made_of
        weight = restored(dict(zip(names, ctx.saved_tensors, strict=True)), shape, precision, gradient.dtype)
        of_inputs = gradient @ weight if ctx.needs_input_grad[0] else None
        of_bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return (of_inputs, of_bias, *(None for _ in range(3 + len(names))))


def quantisable(model: PreTrainedModel) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    """(parent, name in it, layer) of the linear layers that are held in fewer bits: all but the output layer and routers."""
    output = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is torch.nn.Linear and layer is not output and name not in _ROUTERS:
                yield parent, name, layer


def quantise_linears(model: PreTrainedModel, precision: Quantisation, device: torch.device) -> None:
    """Replace the linear layers of `model`, in place. Each weight is quantised on `device`; what is held stays where the weight was.

    UserError if most weights of the model are not in linear layers.
    """
    refuse_unreached(model, precision)
    for parent, name, layer in quantisable(model):
        held = quantised(layer.weight.to(device), precision)
        setattr(
            parent, name, QuantisedLinear(layer, precision, {key: part.to(layer.weight.device) for key, part in held.items()})
        )


def round_trip(model: PreTrainedModel, precision: Quantisation) -> None:
    """Replace each weight by what is left of it in `precision`, in place: the base with its weights as an adapter was trained on them.

    Inputs are not rounded, though training with fp8 rounds them too.
    """
    for _, _, layer in quantisable(model):
        weight = layer.weight
        left = restored(quantised(weight, precision), (layer.out_features, layer.in_features), precision, weight.dtype)
        weight.data.copy_(left)


def num_quantisable(model: PreTrainedModel) -> int:
    """How many weights `quantise_linears` reaches."""
    return sum(layer.weight.numel() for _, _, layer in quantisable(model))


def refuse_unreached(model: PreTrainedModel, precision: Quantisation) -> None:
    """UserError where most matrices are not linear layers, such as experts that are one tensor. It works without storage too."""
    ends = {id(end.weight) for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None}
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1 and id(p) not in ends)
    reached = num_quantisable(model)
    if reached < _FEWEST_REACHED * matrices:
        raise UserError(
            f"training.base_precision {precision} reaches only {reached / matrices:.0%} of the weights of {type(model).__name__}, because "
            "the others, such as experts, are not in linear layers: choose full."
        )


def _has_no_data(tensor: torch.Tensor) -> bool:
    """Whether this is a meta or fake tensor, as in a plan or a dry run."""
    from torch._subclasses.fake_tensor import FakeTensor

    return tensor.is_meta or isinstance(tensor, FakeTensor)


def _sizes(weight: torch.Tensor, precision: Quantisation) -> dict[str, torch.Tensor]:
    if precision in ("int8", "fp8"):
        return {
            "codes": weight.new_empty(weight.shape, dtype=torch.int8 if precision == "int8" else torch.uint8),
            "scales": weight.new_empty(len(weight), dtype=torch.float32),
        }
    blocks = -(-weight.numel() // BLOCK)
    return {
        "codes": weight.new_empty(-(-weight.numel() // 2), dtype=torch.uint8),
        "scales": weight.new_empty(blocks, dtype=torch.uint8),
        "scale_scales": weight.new_empty(-(-blocks // SCALE_BLOCK), dtype=torch.float32),
        "scale_offset": weight.new_empty(1, dtype=torch.float32),
    }


_scale_code_tables: dict[torch.device, torch.Tensor] = {}


def _scale_codes(device: torch.device) -> torch.Tensor:
    """The 256 values of an 8-bit scale, float32."""
    if device not in _scale_code_tables:
        _scale_code_tables[device] = bitsandbytes_functional().create_dynamic_map().to(device)
    return _scale_code_tables[device]
