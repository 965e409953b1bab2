"""`lstm_scan`'s loops over time where the C code is there: a matrix product and one call per step.

For float32 on a CPU, without zoneout; `lstm_scan` chooses. Tests compare both with the equations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.model.cells.gemm import repeated
from pipeline.model.cells.native import library


def suits(pre: Tensor, zoneout: Tensor | None) -> bool:
    """Whether these loops can run a scan of these input products."""
    return zoneout is None and pre.device.type == "cpu" and pre.dtype == torch.float32 and library() is not None


def forward_steps(
    pre: Tensor, gates: Tensor, weight: Tensor, peephole: Tensor | None, h: Tensor, c: Tensor,
    recurrent: Tensor | None, coupled: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fill `gates` (T, B, G * H) with the gates' values; hidden and cell states (T, B, H) each."""
    compiled = library()
    assert compiled is not None
    pre, c = pre.contiguous(), c.contiguous()
    steps, batch, size = pre.shape[0], pre.shape[1], h.shape[1]
    hidden, cells = pre.new_empty(2, steps, batch, size)
    product, step = repeated(weight, batch, steps), compiled.lstm_forward
    peepholes = None if peephole is None else peephole.contiguous()
    peepholes_at, before = _address(peepholes), c.data_ptr()
    pre_at, gates_at, wide = pre.data_ptr(), gates.data_ptr(), 4 * pre[0].numel()
    hidden_at, cells_at, narrow = hidden.data_ptr(), cells.data_ptr(), 4 * batch * size
    for h_t in hidden.unbind():
        arrived = product(h if recurrent is None else h * recurrent)
        step(
            pre_at, arrived.data_ptr(), peepholes_at, before, gates_at, cells_at, hidden_at, batch, size, int(coupled)
        )  # fmt: skip
        h, before = h_t, cells_at
        pre_at, gates_at, hidden_at, cells_at = pre_at + wide, gates_at + wide, hidden_at + narrow, cells_at + narrow
    return hidden, cells


def backward_steps(
    gates: Tensor, cells: Tensor, weight: Tensor, peephole: Tensor | None, c: Tensor,
    grad_hidden: Tensor, grad_cells: Tensor | None, recurrent: Tensor | None, coupled: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Gradients of `pre` (T, B, G * H), of the peepholes (3, H), and of the state (B, H) before the first step.

    Args:
        gates, cells: as `forward_steps` made them.
        c: cell state before the first step.
        grad_hidden, grad_cells: what arrives at the states, (T, B, H) each.
    """
    compiled = library()
    assert compiled is not None
    steps, batch, size = cells.shape
    c, grad_hidden = c.contiguous(), grad_hidden.contiguous()
    grad_cells = None if grad_cells is None else grad_cells.contiguous()
    peepholes = None if peephole is None else peephole.contiguous()
    summed = None if peephole is None else torch.zeros(peephole.shape, dtype=torch.float64)
    grad_pre = torch.empty_like(gates)
    dh, dc = torch.zeros_like(c), torch.zeros_like(c)
    product, step = repeated(weight.t(), batch, steps), compiled.lstm_backward
    wide, narrow = 4 * gates[0].numel(), 4 * batch * size
    gates_at, cells_at, pre_at = gates.data_ptr(), cells.data_ptr(), grad_pre.data_ptr()
    hidden_at, arriving_at = grad_hidden.data_ptr(), _address(grad_cells)
    peepholes_at, summed_at, dc_at = _address(peepholes), _address(summed), dc.data_ptr()
    views = grad_pre.unbind()
    for t in range(steps - 1, -1, -1):
        step(
            gates_at + t * wide, peepholes_at, cells_at + (t - 1) * narrow if t else c.data_ptr(),
            cells_at + t * narrow, hidden_at + t * narrow, None if arriving_at is None else arriving_at + t * narrow,
            dh.data_ptr(), dc_at, pre_at + t * wide, summed_at, batch, size, int(coupled),
        )  # fmt: skip
        dh = product(views[t])
        if recurrent is not None:
            dh = dh * recurrent
    return grad_pre, None if summed is None else summed.to(gates.dtype), dh, dc


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
