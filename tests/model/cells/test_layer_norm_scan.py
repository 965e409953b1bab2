"""The scan with layer normalisation: equal to autograd and to finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.model.cells.layer_norm_scan import layer_norm_scan
from tests.equations import layer_norm_reference


def inputs(steps: int, batch: int, size: int) -> tuple[Tensor, ...]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).requires_grad_()

    rows = 4 * size
    vectors = draw(rows), draw(size), draw(size)
    return draw(steps, batch, rows), draw(rows, size), *vectors, draw(batch, size), draw(batch, size)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(1, 12),
    batch=st.integers(1, 4),
    size=st.integers(2, 6),
    wanted=st.sampled_from(["hidden", "cells", "both"]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_autograd(steps: int, batch: int, size: int, wanted: str, seed: int) -> None:
    torch.manual_seed(seed)
    given = inputs(steps, batch, size)
    found = []
    for run in (layer_norm_scan, layer_norm_reference):
        hidden, cells, gates = run(*given[:5], given[5:])  # type: ignore[arg-type]
        losses = {"hidden": hidden.sin().sum(), "cells": cells.cos().sum()}
        losses["both"] = losses["hidden"] + losses["cells"]
        grads = torch.autograd.grad(losses[wanted], given, allow_unused=True, materialize_grads=True)
        found.append((hidden, cells, gates, *grads))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-9)  # two near-equal cells amplify rounding


def test_gradcheck() -> None:
    torch.manual_seed(0)
    given = inputs(4, 2, 3)
    assert torch.autograd.gradcheck(lambda *x: layer_norm_scan(*x[:5], (x[5], x[6]))[:2], given)


def test_the_gates_carry_no_gradient() -> None:
    given = inputs(3, 1, 2)
    gates = layer_norm_scan(*given[:5], (given[5], given[6]))[2]
    assert not gates.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        gates.sum().backward()
