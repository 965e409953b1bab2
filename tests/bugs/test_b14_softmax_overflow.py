"""B14: attention written as exp / sum overflows; and padding that only weighs little is still padding."""

from __future__ import annotations

import pytest
import torch

from pipeline.model.pooling import Pooling, masked_softmax


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, -1), (1, -1, 0)])
def test_huge_scores_stay_finite_and_padding_weighs_nothing(size: float, signs: tuple[int, ...]) -> None:
    scores = torch.tensor([[*(size * sign for sign in signs), size * 2, torch.nan]])
    mask = torch.tensor([[True, True, True, False, False]])
    weights = masked_softmax(scores, mask)
    assert weights.isfinite().all()
    assert weights[0, 3:].tolist() == [0, 0]
    assert weights.sum().item() == pytest.approx(1)
    expected = [1 / signs.count(max(signs)) if sign == max(signs) else 0 for sign in signs]
    assert weights[0, :3].tolist() == pytest.approx(expected)


def strong(sign: float) -> Pooling:
    """Attention whose score of a hidden vector is `sign` * 1e4 * tanh(its first entry)."""
    pooling = Pooling("attention", 3)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.zero_()
        pooling.project.weight[0, 0] = 1.0
        pooling.context.weight[0, 0] = sign * 1e4
    return pooling


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_strong_attention_at_once_and_step_by_step(sign: float) -> None:
    pooling = strong(sign)
    hidden = torch.tensor([[[9.0, 1.0, 0.0], [-9.0, 2.0, 0.0], [9.0, 3.0, 0.0], [-9.0, 4.0, 0.0]]])
    # With lengths 3, the steps that win are 0 and 2 (sign +) or 1 alone (sign -).
    expected = 2.0
    pooled = pooling(hidden, torch.tensor([3]))
    assert pooled[0, 1].item() == pytest.approx(expected)
    assert pooling.weights(hidden, torch.tensor([3]))[0, 3] == 0
    state = None
    for t in range(4):
        stepped, state = pooling.step(hidden[:, t], state)
        whole = pooling(hidden[:, : t + 1], torch.tensor([t + 1]))
        assert stepped.isfinite().all()
        assert torch.allclose(stepped, whole, atol=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_stay_finite(sign: float) -> None:
    hidden = torch.randn(2, 4, 3, requires_grad=True)
    strong(sign)(hidden, torch.tensor([4, 2])).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()
    assert (hidden.grad[1, 2:] == 0).all()
