"""Matrix products by the fastest library that PyTorch brings along.

On a CPU PyTorch multiplies float32 matrices with MKL, which reaches less than half of an AMD processor's speed. oneDNN,
there for convolutions and for `torch.nn.LSTM`, reaches it on any maker's. The one way to it that costs no conversion is
the operator that PyTorch's own compiler uses; where a version of PyTorch lacks it, MKL it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SMALLEST = 1 << 21
"""Multiply-adds from which oneDNN's start-up of some microseconds pays."""

REORDERED = 24
"""Steps from which it pays to lay out a matrix as oneDNN likes it best; a transposed one it likes as it is."""

_onednn: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
_reorder: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: x (..., D), weight (N, D), bias (N) to (..., N)."""
    if not _suits(x, weight):
        return F.linear(x, weight, bias)
    product: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return product.view(*x.shape[:-1], weight.shape[0])


def times_transposed(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of a (M, K) and the transposed b (N, K), plus bias (N), without autograd."""
    if not _suits(a, b):
        return F.linear(a, b, bias)
    if bias is None and not a.is_contiguous() and a.numel() > b.numel() + len(a) * len(b):
        return _product(b, a).t().contiguous()  # only the left factor has to be laid out anew: let it be the small one
    return _product(a, b, bias)


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = _onednn(a.contiguous(), b, bias, "none", [], "")
    return product


def repeated(weight: Tensor, rows: int, steps: int) -> Callable[[Tensor], Tensor]:
    """A function from x (rows, K) to its product with the transposed weight (N, K), to be called at many steps.

    What can be decided and laid out once is not done at each. Without autograd.
    """
    if not _suits(weight, weight, rows):
        transposed = weight.t()
        return lambda x: x @ transposed
    if _reorder is not None and steps >= REORDERED and weight.is_contiguous():
        weight = _reorder(weight, rows)
    return lambda x: _onednn(x, weight, None, "none", [], "")


def repeated_sum(weight: Tensor, rows: int, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A function from total (rows, N) and x (rows, K) that adds the product of `repeated` to the total, in place."""
    if _suits(weight, weight, rows):
        product = repeated(weight, rows, steps)
        return lambda total, x: total.add_(product(x))
    transposed = weight.t()
    return lambda total, x: total.addmm_(x, transposed)


def _suits(a: Tensor, b: Tensor, rows: int | None = None) -> bool:
    work = b.numel() * (a.numel() // a.shape[-1] if rows is None else rows)
    return _onednn is not None and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32 and work >= SMALLEST


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return times_transposed(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            times_transposed(grad, weight.t()) if for_x else None,
            times_transposed(grad.t(), x.t()) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )
