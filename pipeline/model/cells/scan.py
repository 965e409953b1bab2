"""The recurrence of the minimal cells, h_t = keep_t * h_(t-1) + take_t * candidate_t with keep + take = 1.

On a CPU each step is one fused multiply-add over the batch, and the sequence is worked off in blocks that fit the
cache: the gates of a block are computed, used, and computed again on the way back, which is quicker than to write them
to memory and to read them. On a GPU T small kernels would spend their time waiting to be launched, so log2(T) passes
over the whole sequence do it (Hillis and Steele 1986).

The shares lie in (0, 1): their products only shrink, so nothing overflows, and where they vanish so does what they
stand for. The log space of Feng et al. (2024), which also demands positive states, is not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2**16
"""Elements of a block of states, (steps, B, H), on a CPU."""


@dataclass(frozen=True)
class Gates:
    """How a cell makes its shares from pre-activations.

    Attributes:
        shares: (t, B, G) to keep and take, (t, B, H) each, which add up to 1.
        gradient: fills its last argument (t, B, G) with the gradient of the pre-activations, its first; the second is
            the gradient of `keep` times keep * take, (t, B, H).
    """

    shares: Callable[[Tensor], tuple[Tensor, Tensor]]
    gradient: Callable[[Tensor, Tensor, Tensor], None]


def gated_scan(pre: Tensor, start: Tensor, gates: Gates) -> Tensor:
    """All states h_t = keep_t * h_(t-1) + take_t * candidate_t.

    Args:
        pre: (T, B, G + H), T >= 1: pre-activations of the gates, then the candidate.
        start: (B, H), the state before the first step.
        gates: maps the pre-activations to the shares, step by step.

    Returns:
        (T, B, H). Gradients are not differentiable again.
    """
    return _GatedScan.apply(pre, start, gates)


class _GatedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, start: Tensor, gates: Gates) -> Tensor:
        states = start.new_empty(len(pre), *start.shape)
        before = start
        for part, out in zip(_blocks(pre, start), _blocks(states, start), strict=True):
            of_gates, candidate = _split(part, start)
            keep, take = gates.shares(of_gates)
            solve(keep, take * candidate, before, out)
            before = out[-1]
        ctx.save_for_backward(pre, start, states)
        ctx.gates = gates
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, start, states = ctx.saved_tensors
        grad_pre = torch.empty_like(pre)
        former = torch.cat([start.unsqueeze(0), states[:-1]])
        parts = [_blocks(x, start) for x in (pre, grad, former, grad_pre)]
        carried = torch.zeros_like(start)
        for pre_part, grad_part, former_part, out in reversed(list(zip(*parts, strict=True))):
            of_gates, candidate = _split(pre_part, start)
            grad_gates, grad_candidate = _split(out, start)
            keep, take = ctx.gates.shares(of_gates)
            reached = torch.empty_like(former_part)
            solve_back(keep, grad_part, carried, reached)
            carried = reached[0] * keep[0]
            torch.mul(reached, take, out=grad_candidate)
            slope = torch.sub(former_part, candidate).mul_(reached).mul_(keep).mul_(take)
            ctx.gates.gradient(of_gates, slope, grad_gates)
        return grad_pre, carried, None


def _blocks(x: Tensor, start: Tensor) -> tuple[Tensor, ...]:
    """A tensor (T, ...) in blocks of steps."""
    return x.split(len(x) if x.is_cuda else max(1, BLOCK // start.numel()))


def _split(pre: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    size = start.shape[-1]
    return pre[..., :-size], pre[..., -size:]


def solve(keep: Tensor, added: Tensor, start: Tensor, out: Tensor) -> None:
    """h_t = keep_t * h_(t-1) + added_t without gradient, the quicker way for the device.

    Args:
        keep, added: (T, B, H), T >= 1.
        start: (B, H).
        out: (T, B, H), filled with the states.
    """
    (solve_by_doubling if keep.is_cuda else solve_by_steps)(keep, added, start, out)


def solve_back(keep: Tensor, grad: Tensor, carried: Tensor, out: Tensor) -> None:
    """What reaches h_t: its own gradient and keep_(t+1) * what reaches h_(t+1), the same recurrence backwards.

    Args:
        keep, grad: (T, B, H), T >= 1.
        carried: (B, H), what comes to the last state from the steps after it.
        out: (T, B, H), filled.
    """
    torch.add(grad[-1], carried, out=out[-1])
    if len(keep) == 1:
        return
    if keep.is_cuda:
        turned = torch.empty_like(out[1:])
        solve_by_doubling(keep[1:].flip(0), grad[:-1].flip(0), out[-1], turned)
        out[:-1] = turned.flip(0)
        return
    after = out[-1]
    for share, own, reached in zip(*(reversed(x.unbind()) for x in (keep[1:], grad[:-1], out[:-1])), strict=True):
        after = torch.addcmul(own, share, after, out=reached)


def solve_by_steps(keep: Tensor, added: Tensor, start: Tensor, out: Tensor) -> None:
    """One step after the other."""
    for share, more, state in zip(keep.unbind(), added.unbind(), out.unbind(), strict=True):
        start = torch.addcmul(more, share, start, out=state)


def solve_by_doubling(keep: Tensor, added: Tensor, start: Tensor, out: Tensor) -> None:
    """Spans of 1, 2, 4, ... steps are joined: h after a span is (product of its shares) * h before + what it adds."""
    added = torch.cat([torch.addcmul(added[:1], keep[:1], start), added[1:]])
    span = 1
    while span < len(keep):
        added = torch.cat([added[:span], torch.addcmul(added[span:], keep[span:], added[:-span])])
        keep = torch.cat([keep[:span], keep[span:] * keep[:-span]])
        span *= 2
    out.copy_(added)
