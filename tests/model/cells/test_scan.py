"""The linear recurrence: both ways to solve it agree, in any block size, with the gradients of autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.model.cells import scan


def shares(pre: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(pre), torch.sigmoid(-pre)


def gradient(pre: Tensor, slope: Tensor, out: Tensor) -> None:
    out.copy_(slope)


GATES = scan.Gates(shares, gradient)


def by_autograd(pre: Tensor, start: Tensor) -> Tensor:
    keep, take = shares(pre[..., :3])
    states, h = [], start
    for t in range(len(pre)):
        h = keep[t] * h + take[t] * pre[t, :, 3:]
        states.append(h)
    return torch.stack(states)


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 70), batch=st.integers(1, 3), size=st.integers(1, 4), seed=st.integers(0, 99))
def test_doubling_equals_stepping(steps: int, batch: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    keep = torch.rand(steps, batch, size, dtype=torch.float64)
    added, start = torch.randn_like(keep), torch.randn_like(keep[0])
    stepped, doubled = torch.empty_like(keep), torch.empty_like(keep)
    scan.solve_by_steps(keep, added, start, stepped)
    scan.solve_by_doubling(keep, added, start, doubled)
    torch.testing.assert_close(doubled, stepped, atol=1e-12, rtol=1e-12)
    scan.solve_back(keep, added, start, stepped)
    scan.solve_by_doubling(torch.cat([torch.ones_like(keep[:1]), keep[1:].flip(0)]), added.flip(0), start, doubled)
    torch.testing.assert_close(doubled.flip(0), stepped, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("block", [1, 12, 100000])
def test_values_and_gradients_are_those_of_autograd(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BLOCK", block)
    torch.manual_seed(0)
    pre = torch.randn(13, 2, 6, dtype=torch.float64, requires_grad=True)
    start = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(13, 2, 3, dtype=torch.float64)
    found, expected = scan.gated_scan(pre, start, GATES), by_autograd(pre, start)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    ours = torch.autograd.grad((found * weights).sum(), (pre, start))
    theirs = torch.autograd.grad((expected * weights).sum(), (pre, start))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda p, s: scan.gated_scan(p, s, GATES), (pre, start))


def test_only_the_start_needs_a_gradient() -> None:
    pre = torch.zeros(3, 1, 4)
    start = torch.ones(1, 2, requires_grad=True)
    scan.gated_scan(pre, start, GATES)[-1].sum().backward()
    assert torch.allclose(start.grad, torch.full((1, 2), 0.125))  # type: ignore[arg-type]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_gpu_gives_the_numbers_of_the_cpu() -> None:
    torch.manual_seed(0)
    pre, start = torch.randn(50, 2, 6, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        inputs = [x.detach().to(device).requires_grad_() for x in (pre, start)]
        states = scan.gated_scan(*inputs, GATES)
        found.append([x.cpu() for x in (states, *torch.autograd.grad(states.sin().sum(), inputs))])
    torch.testing.assert_close(found[1], found[0], atol=1e-12, rtol=1e-12)
