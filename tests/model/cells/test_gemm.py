"""Matrix products that go to oneDNN where it pays."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pipeline.model.cells import gemm


def test_values_and_gradients_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*size, requires_grad=True) for size in ((40, 5, 300), (64, 300), (64,)))
    assert gemm.SMALLEST <= 40 * 5 * 300 * 64
    ours, theirs = gemm.linear(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    found = torch.autograd.grad(ours.sin().sum(), (x, weight, bias))
    expected = torch.autograd.grad(theirs.sin().sum(), (x, weight, bias))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_a_gradient_of_a_gradient_is_refused_rather_than_wrong() -> None:
    x, weight = torch.randn(200, 300, requires_grad=True), torch.randn(64, 300, requires_grad=True)
    if gemm._onednn is None:
        pytest.skip("this PyTorch has no oneDNN; its own products can be differentiated twice")
    (first,) = torch.autograd.grad(gemm.linear(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
