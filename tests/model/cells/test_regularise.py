"""Dropout: the masks that a seed gives, their share and size, and that nothing is drawn without need."""

from __future__ import annotations

import pytest
import torch

from pipeline.model.cells.regularise import drop, drop_weights, dropout


def test_a_seed_gives_one_mask_on_every_cpu() -> None:
    """Written down, as PyTorch's own dropout draws other masks on Intel's processors than on others."""
    torch.manual_seed(0)
    kept = drop(torch.ones(12), 0.5) != 0
    assert kept.tolist() == [False, True, False, False, False, True, False, True, False, True, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_what_is_kept_makes_up_for_what_is_dropped(dtype: torch.dtype, rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(200, 500, dtype=dtype, requires_grad=True)
    dropped = drop(x, rate)
    assert dropped.dtype == dtype
    values = dropped.detach().unique()
    torch.testing.assert_close(values, torch.tensor([0, 1 / (1 - rate)], dtype=dtype))
    assert float((dropped == 0).double().mean()) == pytest.approx(rate, abs=0.005)  # five deviations
    (grad,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(grad, dropped)


@pytest.mark.parametrize("variational", [False, True])
def test_nothing_is_drawn_in_evaluation_or_at_rate_0(variational: bool) -> None:
    x, before = torch.randn(2, 3, 4), torch.get_rng_state()
    assert torch.equal(dropout(0.5, variational).eval()(x), x)
    assert torch.equal(dropout(0.0, variational).train()(x), x)
    assert torch.equal(drop_weights(x, 0.5, False), x)
    assert torch.equal(torch.get_rng_state(), before)
