"""The LSTM with layer normalisation over a whole sequence, its backward pass by hand as in `lstm_scan`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.model.cells.gemm import repeated, times_transposed

EPSILON = 1e-5


def layer_norm_scan(
    pre: Tensor, weight: Tensor, scale: Tensor, cell_scale: Tensor, cell_shift: Tensor, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of one layer in one direction: gates from pre + scale * N(weight h), h' = o * tanh(LN(c')).

    N is the normalisation to mean 0 and variance 1 over the 4 * H products, LN the same over the H cells with scale and
    shift (Ba et al. 2016).

    Args:
        pre: (T, B, 4 * H), the normalised input products plus biases; gates in the order input, forget, cell, output.
        weight: (4 * H, H) recurrent weights.
        scale: (4 * H) of the normalised recurrent products.
        cell_scale, cell_shift: (H) of the normalised cell state.
        state: hidden and cell state (B, H) before the first step.

    Returns:
        Hidden and cell states (T, B, H) and the gates' values (T, B, 4 * H), which carry no gradient. Gradients are not
        differentiable again.
    """
    hidden, cells, gates = _Scan.apply(pre, weight, scale, cell_scale, cell_shift, *state)
    return hidden, cells, gates


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pre: Tensor,
        weight: Tensor,
        scale: Tensor,
        cell_scale: Tensor,
        cell_shift: Tensor,
        h: Tensor,
        c: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        size = h.shape[1]
        gates, products = torch.empty_like(pre, memory_format=torch.contiguous_format), torch.empty_like(pre)
        hidden, cells, shown = pre.new_empty(3, *pre.shape[:2], size)
        statistics: list[tuple[Tensor, ...]] = []
        product, before = repeated(weight, len(h), len(pre)), (h, c)
        of_gate = gates.view(*pre.shape[:2], 4, size)
        views = (pre, gates, gates[:, :, : 3 * size], *of_gate.unbind(2), products, hidden, cells, shown)
        for pre_t, all_t, but_output, i, f, g, o, product_t, h_t, c_t, shown_t in zip(
            *(view.unbind() for view in views), strict=True
        ):
            product_t.copy_(product(h))
            normal, mean, rstd = torch.native_layer_norm(product_t, scale.shape, scale, None, EPSILON)
            torch.add(pre_t, normal, out=all_t)
            g.mul_(2)  # tanh by way of the sigmoid, as in `lstm_scan`
            but_output.sigmoid_()
            g.mul_(2).sub_(1)
            o.sigmoid_()
            torch.mul(i, g, out=c_t)
            c_t.addcmul_(f, c)
            normal, cell_mean, cell_rstd = torch.native_layer_norm(
                c_t, cell_scale.shape, cell_scale, cell_shift, EPSILON
            )
            torch.tanh(normal, out=shown_t)
            torch.mul(o, shown_t, out=h_t)
            statistics.append((mean, rstd, cell_mean, cell_rstd))
            h, c = h_t, c_t
        stacked = [torch.stack(values) for values in zip(*statistics, strict=True)]
        ctx.save_for_backward(weight, scale, cell_scale, cell_shift, *before, gates, products, hidden, cells, shown,
                              *stacked)  # fmt: skip
        ctx.mark_non_differentiable(gates)
        ctx.set_materialize_grads(False)
        return hidden, cells, gates

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_hidden: Tensor | None, grad_cells: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        (weight, scale, cell_scale, cell_shift, h0, c0, gates, products, hidden, cells, shown,
         mean, rstd, cell_mean, cell_rstd) = ctx.saved_tensors  # fmt: skip
        steps, batch, size = hidden.shape
        incoming = torch.zeros_like(hidden) if grad_hidden is None else grad_hidden
        i, f, g, o = gates.view(steps, batch, 4, size).unbind(2)
        c_before = torch.cat([c0.unsqueeze(0), cells[:-1]])
        to_cell, to_output = o * (1 - shown * shown), shown * o * (1 - o)
        to_gates = torch.stack([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], 2)
        grad_pre, grad_product = torch.empty_like(gates), torch.empty_like(gates)
        grad_normal = torch.empty_like(hidden)
        of_gate = grad_pre.view(steps, batch, 4, size)
        product = repeated(weight.t(), batch, steps)
        dh, dc = torch.zeros_like(h0), torch.zeros_like(c0)
        for t in range(steps - 1, -1, -1):
            dh = dh + incoming[t]
            if grad_cells is not None:
                dc = dc + grad_cells[t]
            torch.mul(dh, to_cell[t], out=grad_normal[t])
            dc = dc + _through_norm(grad_normal[t], cells[t], cell_mean[t], cell_rstd[t], cell_scale, cell_shift)
            torch.mul(dc.unsqueeze(1), to_gates[t], out=of_gate[t, :, :3])
            torch.mul(dh, to_output[t], out=of_gate[t, :, 3])
            dc = dc * f[t]
            grad_product[t] = _through_norm(grad_pre[t], products[t], mean[t], rstd[t], scale, None)
            dh = product(grad_product[t])
        h_before = torch.cat([h0.unsqueeze(0), hidden[:-1]])
        grad_weight = times_transposed(grad_product.flatten(0, 1).t(), h_before.flatten(0, 1).t())
        grad_scale = (grad_pre * (products - mean) * rstd).sum((0, 1))
        grad_cell_scale = (grad_normal * (cells - cell_mean) * cell_rstd).sum((0, 1))
        return grad_pre, grad_weight, grad_scale, grad_cell_scale, grad_normal.sum((0, 1)), dh, dc


def _through_norm(grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Gradient of what was normalised, (B, N), from that of the normalised and scaled."""
    given = torch.ops.aten.native_layer_norm_backward(
        grad, x, scale.shape, mean, rstd, scale, shift, [True, False, False]
    )
    result: Tensor = given[0]
    return result
