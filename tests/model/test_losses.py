"""Losses: what has no target weighs exactly nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.losses import class_loss, known, number_loss


def test_cross_entropy_of_labelled_moments_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [5.0, 5.0]]])
    targets = torch.tensor([[0, 1, -1]])
    by_hand = -(torch.tensor([2.0, 0.0]).log_softmax(0)[0] + torch.tensor(0.5).log()) / 2
    assert class_loss(logits, targets) == pytest.approx(float(by_hand))
    weighted = class_loss(logits, targets, torch.tensor([3.0, 1.0]))
    first, second = (class_loss(logits[:, i : i + 1], targets[:, i : i + 1]) for i in (0, 1))
    assert weighted == pytest.approx(float((3 * first + second) / 4))


def test_huber_by_hand() -> None:
    outputs = torch.tensor([[[0.5], [3.0], [9.0]]])
    targets = torch.tensor([[0.0, 0.0, torch.nan]])
    assert number_loss(outputs, targets) == pytest.approx((0.5 * 0.25 + (3 - 0.5)) / 2)


def test_of_whole_clips_it_is_pytorchs_own() -> None:
    logits, targets = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        assert torch.equal(class_loss(logits, targets, smoothing=smoothing), expected)
    numbers = torch.randn(5)
    assert torch.equal(number_loss(logits[:, :1], numbers), torch.nn.functional.huber_loss(logits[:, 0], numbers))


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=3), st.booleans())
def test_neither_value_nor_gradient_feels_what_has_no_target(given_ones: list[list[bool]], numeric: bool) -> None:
    mask = torch.tensor(given_ones)
    torch.manual_seed(0)
    targets = torch.randn(mask.shape) if numeric else torch.randint(0, 3, mask.shape)
    targets = targets.masked_fill(~mask, torch.nan if numeric else -1)
    assert torch.equal(known(targets), mask)
    results = []
    for filling in (0.0, torch.nan, torch.inf):
        torch.manual_seed(1)
        outputs = torch.randn(*mask.shape, 1 if numeric else 3).masked_fill(~mask.unsqueeze(-1), filling)
        outputs.requires_grad_()
        loss = number_loss(outputs, targets) if numeric else class_loss(outputs, targets, smoothing=0.1)
        loss.backward()
        assert outputs.grad is not None
        assert (outputs.grad[~mask] == 0).all()
        assert (outputs.grad[mask].abs().amax(-1) > 0).all()
        results.append((float(loss.detach()), outputs.grad[mask]))
    assert results[0][0] == results[1][0] == results[2][0]
    assert torch.equal(results[0][1], results[1][1]) and torch.equal(results[0][1], results[2][1])


@pytest.mark.parametrize("numeric", [True, False])
def test_a_batch_without_any_target_costs_nothing(numeric: bool) -> None:
    outputs = torch.randn(2, 3, 1, requires_grad=True)
    targets = torch.full((2, 3), torch.nan) if numeric else torch.full((2, 3), -1)
    loss = number_loss(outputs, targets) if numeric else class_loss(outputs, targets)
    loss.backward()
    assert loss == 0 and outputs.grad is not None and (outputs.grad == 0).all()
