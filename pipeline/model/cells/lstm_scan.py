"""The LSTM family over a whole sequence, with a backward pass written by hand.

A cell stepped by autograd costs about forty small operations per step, forwards and backwards. Here only what really
depends on the step before stays in the loops: one matrix product and a handful of elementwise operations. All else is
done for all steps at once: the input products before the loop, every factor of the backward recurrence before the
second loop, the gradients of the weights after it. `lstm_reference` is the same by autograd; tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.model.cells import lstm_gpu, lstm_native
from pipeline.model.cells.gemm import repeated, repeated_sum, times_transposed

CHUNK = 32
"""Steps whose backward factors are made at a time: few enough to stay in a processor's cache."""


@dataclass(frozen=True)
class Kept:
    """What is random about a scan, drawn before it; or expected values, in evaluation.

    Attributes:
        recurrent: (B, H) factors of the hidden state on its way into the gates, the same at all steps, or None.
        hidden, cell: zoneout: shares in [0, 1] that hidden and cell state keep of their former value, each (T, B, H)
            or a scalar tensor; both None where there is no zoneout.
    """

    recurrent: Tensor | None = None
    hidden: Tensor | None = None
    cell: Tensor | None = None


def lstm_scan(
    pre: Tensor,
    weight: Tensor,
    state: tuple[Tensor, Tensor],
    peephole: Tensor | None = None,
    coupled: bool = False,
    kept: Kept | None = None,
) -> tuple[Tensor, Tensor]:
    """All steps of one LSTM layer in one direction.

    Args:
        pre: (T, B, G * H) input products plus biases; gates in the order input, forget, cell, output as in
            `torch.nn.LSTM` (G = 4), or forget, cell, output (G = 3) where `coupled`.
        weight: (G * H, H) recurrent weights.
        state: hidden and cell state (B, H) before the first step.
        peephole: (3, H) diagonal weights from the cell state to the input, forget and output gate (Gers and
            Schmidhuber 2000: the first two see the former cell state, the last the new one); not with `coupled`.
        coupled: the input gate is 1 - forget gate (Greff et al. 2015).
        kept: recurrent dropout and zoneout. The hidden state is made from the cell state before its own zoneout
            (Krueger et al. 2017).

    Returns:
        Hidden and cell states, (T, B, H) each. Gradients are not differentiable again.
    """
    kept = kept or Kept()
    hidden, cells = _Scan.apply(pre, weight, peephole, *state, kept.recurrent, kept.hidden, kept.cell, coupled)
    return hidden, cells


def lstm_reference(
    pre: Tensor,
    weight: Tensor,
    state: tuple[Tensor, Tensor],
    peephole: Tensor | None = None,
    coupled: bool = False,
    kept: Kept | None = None,
) -> tuple[Tensor, Tensor]:
    """`lstm_scan`, written as the equations are, differentiated by autograd: slow, and plain to check."""
    kept = kept or Kept()
    h, c = state
    hidden, cells = [], []
    steps, batch, size = pre.shape[0], pre.shape[1], h.shape[1]
    keep_h, keep_c = (None if x is None else x.expand(steps, batch, size) for x in (kept.hidden, kept.cell))
    for t in range(steps):
        *i_pre, f_pre, g_pre, o_pre = (
            pre[t] + (h if kept.recurrent is None else h * kept.recurrent) @ weight.t()
        ).chunk(3 if coupled else 4, dim=-1)
        p_i, p_f, p_o = (0.0, 0.0, 0.0) if peephole is None else peephole
        f = torch.sigmoid(f_pre + p_f * c)
        i = 1 - f if coupled else torch.sigmoid(i_pre[0] + p_i * c)
        new_c = f * c + i * torch.tanh(g_pre)
        new_h = torch.sigmoid(o_pre + p_o * new_c) * torch.tanh(new_c)
        h = new_h if keep_h is None else keep_h[t] * h + (1 - keep_h[t]) * new_h
        c = new_c if keep_c is None else keep_c[t] * c + (1 - keep_c[t]) * new_c
        hidden.append(h)
        cells.append(c)
    return torch.stack(hidden), torch.stack(cells)


def lstm_gates(
    pre: Tensor, cell: Tensor | None = None, peephole: Tensor | None = None, coupled: bool = False
) -> dict[str, Tensor]:
    """The gates' values and the cell candidate, (..., H) each, by name: input, forget, cell, output.

    Args:
        pre: (..., G * H), recurrent products included.
        cell: (..., H) former cell states, read by the peepholes.
        peephole, coupled: as in `lstm_scan`.
    """
    *i_pre, f_pre, g_pre, o_pre = pre.chunk(3 if coupled else 4, dim=-1)
    if peephole is None or cell is None:
        f = torch.sigmoid(f_pre)
        i = 1 - f if coupled else torch.sigmoid(i_pre[0])
        return {"input": i, "forget": f, "cell": torch.tanh(g_pre), "output": torch.sigmoid(o_pre)}
    i, f = torch.sigmoid(i_pre[0] + peephole[0] * cell), torch.sigmoid(f_pre + peephole[1] * cell)
    g = torch.tanh(g_pre)
    return {"input": i, "forget": f, "cell": g, "output": torch.sigmoid(o_pre + peephole[2] * (f * cell + i * g))}


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pre: Tensor,
        weight: Tensor,
        peephole: Tensor | None,
        h: Tensor,
        c: Tensor,
        recurrent: Tensor | None,
        keep_h: Tensor | None,
        keep_c: Tensor | None,
        coupled: bool,
    ) -> tuple[Tensor, Tensor]:
        gates = torch.empty_like(pre, memory_format=torch.contiguous_format)
        ctx.loops = next((loops for loops in (lstm_native, lstm_gpu) if loops.suits(pre, keep_h)), None)
        if ctx.loops:
            hidden, cells = ctx.loops.forward_steps(pre, gates, weight, peephole, h, c, recurrent, coupled)
        else:
            hidden, cells = _forward_steps(pre, gates, weight, peephole, h, c, recurrent, keep_h, keep_c, coupled)
        ctx.save_for_backward(weight, peephole, h, c, recurrent, keep_h, keep_c, gates, hidden, cells)
        ctx.coupled = coupled
        ctx.set_materialize_grads(False)
        return hidden, cells

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor | None, grad_cells: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, peephole, h0, c0, recurrent, keep_h, keep_c, gates, hidden, cells = ctx.saved_tensors
        if grad_hidden is None:
            grad_hidden = torch.zeros_like(hidden)
        h_before = torch.cat([h0.unsqueeze(0), hidden[:-1]])
        if ctx.loops:
            grad_pre, grad_peephole, dh, dc = ctx.loops.backward_steps(
                gates, cells, weight, peephole, c0, grad_hidden, grad_cells, recurrent, ctx.coupled
            )
        else:
            kept = Kept(recurrent, keep_h, keep_c)
            grad_pre, grad_peephole, dh, dc = _backward(
                gates, cells, weight, peephole, c0, grad_hidden, grad_cells, kept, ctx.coupled
            )
        seen_h = h_before if recurrent is None else h_before * recurrent
        grad_weight = times_transposed(grad_pre.flatten(0, 1).t(), seen_h.flatten(0, 1).t())
        return grad_pre, grad_weight, grad_peephole, dh, dc, None, None, None, None


def _backward(
    gates: Tensor,
    cells: Tensor,
    weight: Tensor,
    peephole: Tensor | None,
    c: Tensor,
    grad_hidden: Tensor,
    grad_cells: Tensor | None,
    kept: Kept,
    coupled: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """As `lstm_native.backward_steps`, a chunk after the other."""
    before = torch.cat([c.unsqueeze(0), cells[:-1]])
    grad_pre = torch.empty_like(gates)
    grad_peephole = None if peephole is None else torch.zeros_like(peephole)
    dh, dc = torch.zeros_like(c), torch.zeros_like(c)
    for part in reversed(range(0, len(gates), CHUNK)):
        steps = slice(part, part + CHUNK)
        factors = _factors(gates[steps], before[steps], peephole, coupled)
        arriving = grad_hidden[steps], None if grad_cells is None else grad_cells[steps]
        zones = [x if x is None or x.ndim == 0 else x[steps] for x in (kept.hidden, kept.cell)]
        dh, dc = _backward_steps(grad_pre[steps], weight, factors, *arriving, dh, dc, kept.recurrent, *zones)
        if grad_peephole is not None:
            of_gate = grad_pre[steps].view(*factors.new_cell.shape[:2], 4, -1)
            for row, gate, seen in ((0, 0, before[steps]), (1, 1, before[steps]), (2, 3, factors.new_cell)):
                grad_peephole[row] += (of_gate[:, :, gate] * seen).sum((0, 1))
    return grad_pre, grad_peephole, dh, dc


def _forward_steps(
    pre: Tensor,
    gates: Tensor,
    weight: Tensor,
    peephole: Tensor | None,
    h: Tensor,
    c: Tensor,
    recurrent: Tensor | None,
    keep_h: Tensor | None,
    keep_c: Tensor | None,
    coupled: bool,
) -> tuple[Tensor, Tensor]:
    """The loop over time; fills `gates` (T, B, G * H) with the gates' values."""
    steps, batch, size = pre.shape[0], pre.shape[1], h.shape[1]
    hidden, cells = pre.new_empty(2, steps, batch, size)
    of_gate = gates.view(steps, batch, -1, size)
    parts = (of_gate[:, :, :-2], gates[:, :, :-size], of_gate[:, :, 0], *of_gate.unbind(2)[-3:])
    views = [x.unbind() for x in (gates, *parts, hidden, cells)]
    zones = None if keep_h is None or keep_c is None else [x.expand_as(hidden) for x in (keep_h, keep_c)]
    twice = weight.clone()  # tanh(x) = 2 sigmoid(2 x) - 1: one contiguous sigmoid is a third of tanh on a slice
    twice[-2 * size : -size] *= 2
    scale = pre.new_ones(pre.shape[-1])
    scale[-2 * size : -size] = 2
    add_product = repeated_sum(twice, batch, steps)
    minus_one = pre.new_tensor([-1.0])
    for t, (all_t, open_t, but_output, i, f, g, o, h_t, c_t) in enumerate(zip(*views, strict=True)):
        if t % CHUNK == 0:
            torch.mul(pre[t : t + CHUNK], scale, out=gates[t : t + CHUNK])
        add_product(all_t, h if recurrent is None else h * recurrent)
        if peephole is not None:
            open_t.addcmul_(peephole[:2], c.unsqueeze(1))
        but_output.sigmoid_()
        torch.add(minus_one, g, alpha=2, out=g)
        if coupled:
            torch.lerp(g, c, f, out=c_t)
        else:
            torch.mul(i, g, out=c_t)
            c_t.addcmul_(f, c)
        if peephole is not None:
            o.addcmul_(peephole[2], c_t)
        o.sigmoid_()
        torch.add(minus_one, torch.mul(c_t, 2, out=h_t).sigmoid_(), alpha=2, out=h_t)
        h_t.mul_(o)
        if zones is not None:
            h_t.lerp_(h, zones[0][t])
            c_t.lerp_(c, zones[1][t])
        h, c = h_t, c_t
    return hidden, cells


@dataclass(frozen=True)
class _Factors:
    """Derivatives that do not depend on the gradient that arrives, for all steps at once; (T, B, H) but `gates`.

    Attributes:
        new_cell: the cell state a step makes, before zoneout.
        h_to_cell: of the hidden state by the new cell state, the way through the output gate's peephole included.
        h_to_output: of the hidden state by the output gate's preactivation.
        cell_to_gates: (T, B, G - 1, H), of the new cell state by the other preactivations.
        cell_to_former: of the new cell state by the former one, the way through the peepholes included.
    """

    new_cell: Tensor
    h_to_cell: Tensor
    h_to_output: Tensor
    cell_to_gates: Tensor
    cell_to_former: Tensor


def _factors(gates: Tensor, c: Tensor, peephole: Tensor | None, coupled: bool) -> _Factors:
    *inputs, f, g, o = gates.view(*gates.shape[:2], 3 if coupled else 4, -1).unbind(2)
    i = 1 - f if coupled else inputs[0]
    new_cell = torch.addcmul(i * g, f, c)
    shown = torch.sigmoid(2 * new_cell).mul_(2).sub_(1)
    h_to_output = shown * o * (1 - o)
    h_to_cell = o * (1 - shown * shown)
    by_g = i * (1 - g * g)
    slope_f = f * (1 - f)
    cell_to_former = f
    if coupled:
        cell_to_gates = torch.stack([(c - g) * slope_f, by_g], 2)
    else:
        by_i, by_f = g * i * (1 - i), c * slope_f
        cell_to_gates = torch.stack([by_i, by_f, by_g], 2)
        if peephole is not None:
            cell_to_former = f + by_i * peephole[0] + by_f * peephole[1]
            h_to_cell = torch.addcmul(h_to_cell, h_to_output, peephole[2])
    return _Factors(new_cell, h_to_cell, h_to_output, cell_to_gates, cell_to_former)


def _backward_steps(
    grad_pre: Tensor,
    weight: Tensor,
    factors: _Factors,
    grad_hidden: Tensor,
    grad_cells: Tensor | None,
    dh: Tensor,
    dc: Tensor,
    recurrent: Tensor | None,
    keep_h: Tensor | None,
    keep_c: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The loop back through time: fills `grad_pre` (T, B, G * H); from the gradients of the state after these steps,
    as later steps see it, to those of the state before them.
    """
    steps, batch, count, size = factors.cell_to_gates.shape
    of_gate = grad_pre.view(steps, batch, count + 1, size)
    views = [
        x.unbind()
        for x in (
            grad_hidden, grad_pre, of_gate[:, :, :-1], of_gate[:, :, -1],
            factors.h_to_cell, factors.h_to_output, factors.cell_to_gates, factors.cell_to_former,
        )
    ]  # fmt: skip
    zones = None if keep_h is None or keep_c is None else [x.expand_as(grad_hidden) for x in (keep_h, keep_c)]
    product = repeated(weight.t(), batch, steps)
    for t in range(steps - 1, -1, -1):
        incoming, all_t, but_output, output, h_to_cell, h_to_output, cell_to_gates, cell_to_former = (
            view[t] for view in views
        )
        dh = dh + incoming
        if grad_cells is not None:
            dc = dc + grad_cells[t]
        if zones is not None:
            stays_h, stays_c = dh * zones[0][t], dc * zones[1][t]
            dh, dc = dh - stays_h, dc - stays_c
        dc = torch.addcmul(dc, dh, h_to_cell)
        torch.mul(dc.unsqueeze(1), cell_to_gates, out=but_output)
        torch.mul(dh, h_to_output, out=output)
        dc = dc * cell_to_former
        dh = product(all_t)
        if recurrent is not None:
            dh = dh * recurrent
        if zones is not None:
            dh, dc = dh + stays_h, dc + stays_c
    return dh, dc
