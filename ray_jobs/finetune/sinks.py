"""Attention sinks with a kernel that does not compute them, from its log-sum-exp.

With scores s_ij, their log-sum-exp l_i, a sink s and L_i = log(exp(l_i) + exp(s)), the softmax over keys and sink gives

    p'_ij = exp(s_ij - L_i)                    so the output is the kernel's times exp(l_i - L_i)
    ds_ij = p'_ij (dp_ij - d_i . o'_i)         what the kernel's own backward computes when it is given o' and L
    ds    = -sum_i exp(s - L_i) (d_i . o'_i)

where d is the output's gradient and o' the output with the sink. Nothing is computed twice, and no kernel is changed.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Kernel(Protocol):
    """Attention of T tokens: queries [T, H, D], keys and values [T, K, D]; the log-sum-exp is float32 or wider, [H, T]."""

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The output [T, H, D] and the log-sum-exp."""
        ...

    def backward(
        self,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        output: torch.Tensor,
        sums: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gradients of queries, keys and values, from the output's gradient, the output and the log-sum-exp."""
        ...


class AttentionWithSinks(torch.autograd.Function):
    """`apply(query_THD, key_TKD, value_TKD, sinks_H, kernel)` -> output [T, H, D]."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks_H: torch.Tensor, kernel: Kernel
    ) -> torch.Tensor:
        output, without_HT = kernel.forward(query, key, value)
        sums_HT = torch.logaddexp(without_HT, sinks_H[:, None].to(without_HT.dtype))
        output = (output * (without_HT - sums_HT).exp().T[..., None]).to(output.dtype)
        ctx.save_for_backward(query, key, value, sinks_H, output, sums_HT)
        ctx.kernel = kernel
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, sinks_H, output, sums_HT = ctx.saved_tensors
        grad = gradients[0].contiguous()
        grads = ctx.kernel.backward(grad, query, key, value, output, sums_HT)
        wide = sums_HT.dtype
        along_HT = (grad.to(wide) * output.to(wide)).sum(-1).T
        of_sinks = -((sinks_H[:, None].to(wide) - sums_HT).exp() * along_HT).sum(1)
        return (*grads, of_sinks.to(sinks_H.dtype), None)
