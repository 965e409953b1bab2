"""The scan with its hand-written backward: equal to autograd, to torch.nn.LSTM, and to finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.model.cells import lstm_scan as module
from pipeline.model.cells.lstm_scan import Kept, lstm_reference, lstm_scan


def inputs(
    steps: int, batch: int, size: int, dtype: torch.dtype, peephole: bool, coupled: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor | None]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    rows = (3 if coupled else 4) * size
    state = draw(batch, size), draw(batch, size)
    return draw(steps, batch, rows), draw(rows, size), state, draw(3, size) if peephole else None


def kept(steps: int, batch: int, size: int, dtype: torch.dtype, recurrent: bool, zoneout: str) -> Kept:
    def share() -> Tensor | None:
        if zoneout == "none":
            return None
        return torch.rand((), dtype=dtype) if zoneout == "mean" else torch.rand(steps, batch, size, dtype=dtype).round()

    return Kept(torch.rand(batch, size, dtype=dtype) if recurrent else None, share(), share())


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 40),  # more than one chunk of the backward pass
    batch=st.integers(1, 4),
    size=st.integers(1, 6),
    variant=st.sampled_from(["plain", "peephole", "coupled"]),
    recurrent=st.booleans(),
    zoneout=st.sampled_from(["none", "mean", "masks"]),
    wanted=st.sampled_from(["hidden", "cells", "both", "last"]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_autograd(
    steps: int, batch: int, size: int, variant: str, recurrent: bool, zoneout: str, wanted: str, seed: int
) -> None:
    torch.manual_seed(seed)
    coupled = variant == "coupled"
    pre, weight, state, peephole = inputs(steps, batch, size, torch.float64, variant == "peephole", coupled)
    random = kept(steps, batch, size, torch.float64, recurrent, zoneout)
    leaves = [leaf for leaf in (pre, weight, *state, peephole) if leaf is not None]
    found = []
    for run in (lstm_scan, lstm_reference):
        hidden, cells = run(pre, weight, state, peephole, coupled, random)
        losses = {"hidden": hidden.sin().sum(), "cells": cells.cos().sum(), "last": hidden[-1].sum()}
        losses["both"] = losses["hidden"] + losses["cells"]
        grads = torch.autograd.grad(losses[wanted], leaves, allow_unused=True, materialize_grads=True)
        found.append((hidden, cells, *grads))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", ["plain", "peephole", "coupled"])
@pytest.mark.parametrize("zoneout", ["none", "masks"])
def test_gradcheck(variant: str, zoneout: str) -> None:
    torch.manual_seed(0)
    coupled = variant == "coupled"
    pre, weight, state, peephole = inputs(4, 2, 3, torch.float64, variant == "peephole", coupled)
    random = kept(4, 2, 3, torch.float64, True, zoneout)

    def run(pre: Tensor, weight: Tensor, h: Tensor, c: Tensor, *more: Tensor) -> tuple[Tensor, Tensor]:
        return lstm_scan(pre, weight, (h, c), more[0] if more else None, coupled, random)

    assert torch.autograd.gradcheck(run, (pre, weight, *state, *([] if peephole is None else [peephole])))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("size", [7, 256])  # 256: large enough for oneDNN in float32
def test_with_zero_peepholes_it_is_torch_lstm(dtype: torch.dtype, tolerance: float, size: int) -> None:
    torch.manual_seed(0)
    net = nn.LSTM(5, size, dtype=dtype)
    x = torch.randn(9, 16, 5, dtype=dtype)
    weights = {name: value.detach().clone().requires_grad_() for name, value in net.named_parameters()}
    pre = x @ weights["weight_ih_l0"].t() + weights["bias_ih_l0"] + weights["bias_hh_l0"]
    zeros = x.new_zeros(16, size)
    peephole = torch.zeros(3, size, dtype=dtype, requires_grad=True)
    hidden, _ = lstm_scan(pre, weights["weight_hh_l0"], (zeros, zeros), peephole)
    expected, _ = net(x)
    assert torch.allclose(hidden, expected, rtol=0, atol=tolerance)
    hidden.sin().mean().backward()
    expected.sin().mean().backward()
    for name, value in net.named_parameters():
        assert value.grad is not None
        assert torch.allclose(weights[name].grad, value.grad, rtol=0, atol=tolerance)
    assert peephole.grad is not None and peephole.grad.abs().max() > 0


def test_a_second_derivative_is_refused() -> None:
    pre, weight, state, _ = inputs(3, 1, 2, torch.float64, False, False)
    hidden, _ = lstm_scan(pre, weight, state)
    (grad,) = torch.autograd.grad(hidden.sin().sum(), pre, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_chunks_of_the_backward_pass_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    pre, weight, state, peephole = inputs(10, 2, 3, torch.float64, True, False)
    grads = []
    for chunk in (1, 3, 10, 64):
        monkeypatch.setattr(module, "CHUNK", chunk)
        hidden, cells = lstm_scan(pre, weight, state, peephole)
        grads.append(torch.autograd.grad(hidden.sum() + cells.sum(), (pre, weight, *state, peephole)))
    for other in grads[1:]:
        for one, two in zip(grads[0], other, strict=True):
            assert torch.allclose(one, two, rtol=1e-12, atol=1e-12)
