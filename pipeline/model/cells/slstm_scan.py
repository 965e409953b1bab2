"""The sLSTM over a whole sequence, with a backward pass written by hand (compare lstm_scan.py).

Gate order as in `torch.nn.LSTM`: input, forget, cell, output. With W_hh h + pre split into i, f, g, o:

    log_f = log sigmoid(f)
    m' = max(log_f + m, i)
    F = exp(log_f + m - m')    I = exp(i - m')
    c' = F * c + I * tanh(g)   n' = F * n + I
    h' = sigmoid(o) * c' / n'

m rescales c and n together and cancels in c / n. It is therefore a constant for the gradient, which loses nothing. One
of F and I is 1 at each step, so n is at least 1 after the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.model.cells.gemm import repeated, times_transposed


def slstm_scan(pre: Tensor, weight: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All steps of one sLSTM layer in one direction.

    Args:
        pre: (T, B, 4 * H), input products plus biases, T >= 1.
        weight: (4 * H, H), recurrent weights.
        state: h, c, n and m before the first step, (B, H) each; an m of -inf where there is nothing yet.

    Returns:
        h, c, n and m after every step, (T, B, H) each; m has no gradient. Gradients are not differentiable again.
    """
    return _Scan.apply(pre, weight, *state)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pre: Tensor, weight: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gates = torch.empty_like(pre, memory_format=torch.contiguous_format)
        states = h.new_empty(4, len(pre), *h.shape)
        _forward_steps(pre, weight, gates, states, (h, c, n, m))
        hidden, cells, normalisers, stabilisers = states.unbind()
        ctx.save_for_backward(weight, gates, states, h, c, n, m)
        ctx.mark_non_differentiable(stabilisers)
        ctx.set_materialize_grads(False)
        return hidden, cells, normalisers, stabilisers

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, grad_n: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        weight, gates, states, *start = ctx.saved_tensors
        before = torch.cat([torch.stack(start).unsqueeze(1), states[:, :-1]], 1)
        if grad_h is None:
            grad_h = torch.zeros_like(states[0])
        grad_pre, *grad_start = _backward_steps(weight, _factors(gates, states, before), grad_h, grad_c, grad_n)
        grad_weight = times_transposed(grad_pre.flatten(0, 1).t(), before[0].flatten(0, 1).t())
        return grad_pre, grad_weight, *grad_start, None


def _forward_steps(pre: Tensor, weight: Tensor, gates: Tensor, states: Tensor, start: tuple[Tensor, ...]) -> None:
    """The loop over time. Fills `states` (4, T, B, H), and `gates` (T, B, 4 * H) with i, f, tanh(g), sigmoid(o)."""
    h, c, n, m = start
    of_gate = gates.view(*gates.shape[:2], 4, -1)
    views = [x.unbind() for x in (pre, gates, *of_gate.unbind(2), *states.unbind())]
    product = repeated(weight, len(h), len(pre))
    for pre_t, all_t, i, f, g, o, h_t, c_t, n_t, m_t in zip(*views, strict=True):
        torch.add(pre_t, product(h), out=all_t)
        g.tanh_()
        o.sigmoid_()
        kept = log_sigmoid(f).add_(m)
        torch.maximum(kept, i, out=m_t)
        forget, take = kept.sub_(m_t).exp_(), torch.sub(i, m_t).exp_()
        torch.addcmul(torch.mul(take, g, out=c_t), forget, c, out=c_t)
        torch.addcmul(take, forget, n, out=n_t)
        torch.div(c_t, n_t, out=h_t).mul_(o)
        h, c, n, m = h_t, c_t, n_t, m_t


def log_sigmoid(x: Tensor) -> Tensor:
    """The logarithm of sigmoid(x), as precise as sigmoid(x) itself; PyTorch's is not vectorised on a CPU, and slow."""
    return x.abs().sigmoid_().log_().add_(x.clamp(max=0))


@dataclass(frozen=True)
class _Factors:
    """Derivatives that do not depend on the gradient that arrives, for all steps at once; (T, B, H) where not said.

    Attributes:
        h_to_output, h_to_c, h_to_n: of the hidden state by the output gate's pre-activation, by c and by n.
        c_to_gates: (T, B, 3, H), of c by the pre-activations i, f and g.
        n_to_gates: (T, B, 2, H), of n by i and f.
        forget: of c and n by their former values.
    """

    h_to_output: Tensor
    h_to_c: Tensor
    h_to_n: Tensor
    c_to_gates: Tensor
    n_to_gates: Tensor
    forget: Tensor


def _factors(gates: Tensor, states: Tensor, before: Tensor) -> _Factors:
    i, f, g, o = gates.view(*gates.shape[:2], 4, -1).unbind(2)
    h, _, n, m = states.unbind()
    forget, take = torch.exp(log_sigmoid(f) + before[3] - m), torch.exp(i - m)
    slope = forget * torch.sigmoid(-f)
    return _Factors(
        h_to_output=h * (1 - o),
        h_to_c=o / n,
        h_to_n=-h / n,
        c_to_gates=torch.stack([take * g, slope * before[1], take * (1 - g * g)], 2),
        n_to_gates=torch.stack([take, slope * before[2]], 2),
        forget=forget,
    )


def _backward_steps(
    weight: Tensor, factors: _Factors, grad_h: Tensor, grad_c: Tensor | None, grad_n: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loop back through time: gradients of `pre` (T, B, 4 * H) and of h, c, n before the first step (B, H)."""
    steps, batch, size = grad_h.shape
    grad_pre = grad_h.new_empty(steps, batch, 4 * size)
    of_gate = grad_pre.view(steps, batch, 4, size)
    views = [
        x.unbind()
        for x in (
            grad_h, grad_pre, of_gate[:, :, :3], of_gate[:, :, :2], of_gate[:, :, 3], factors.h_to_output,
            factors.h_to_c, factors.h_to_n, factors.c_to_gates, factors.n_to_gates, factors.forget,
        )
    ]  # fmt: skip
    dh, dc, dn = grad_h.new_zeros(3, batch, size)
    product = repeated(weight.t(), batch, steps)
    for t in range(steps - 1, -1, -1):
        incoming, all_t, by_c, by_n, output, h_to_output, h_to_c, h_to_n, c_to, n_to, forget = (v[t] for v in views)
        dh = dh + incoming
        dc = torch.addcmul(dc if grad_c is None else dc + grad_c[t], dh, h_to_c)
        dn = torch.addcmul(dn if grad_n is None else dn + grad_n[t], dh, h_to_n)
        torch.mul(dc.unsqueeze(1), c_to, out=by_c)
        by_n.addcmul_(dn.unsqueeze(1), n_to)
        torch.mul(dh, h_to_output, out=output)
        dh, dc, dn = product(all_t), dc * forget, dn * forget
    return grad_pre, dh, dc, dn
