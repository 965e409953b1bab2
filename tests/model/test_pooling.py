"""Pooling: the valid steps and nothing else, at once or step by step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.model.pooling import Kind, Pooling, masked_softmax
from pipeline.model.recurrent import valid_mask

KINDS: tuple[Kind, ...] = ("last", "mean", "max", "attention", "linear")


def clips(lengths: list[int], size: int = 6, padding: float = torch.nan) -> torch.Tensor:
    hidden = torch.randn(len(lengths), max(lengths) + 2, size)
    hidden[~valid_mask(torch.tensor(lengths), hidden.shape[1], hidden.device)] = padding
    return hidden


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    both=st.booleans(),
    seed=st.integers(0, 9),
)
def test_padding_is_never_read(kind: Kind, lengths: list[int], both: bool, seed: int) -> None:
    torch.manual_seed(seed)
    pooling = Pooling(kind, 6, both)
    hidden = clips(lengths)
    with torch.no_grad():
        together = pooling(hidden, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = pooling(hidden[row : row + 1, :length], torch.tensor([length]))
            assert torch.allclose(together[row], alone[0], atol=1e-6)


def test_values() -> None:
    hidden = torch.tensor([[[1.0, 10.0], [3.0, -4.0], [-9.0, 99.0]]])
    lengths = torch.tensor([2])
    assert Pooling("last", 2)(hidden, lengths).tolist() == [[3, -4]]
    assert Pooling("mean", 2)(hidden, lengths).tolist() == [[2, 3]]
    assert Pooling("max", 2)(hidden, lengths).tolist() == [[3, 10]]
    assert Pooling("linear", 2)(hidden, lengths)[0].tolist() == pytest.approx([(1 + 2 * 3) / 3, (10 - 2 * 4) / 3])
    # Read backwards, the last step is the first of the clip.
    assert Pooling("last", 2, bidirectional=True)(hidden, lengths).tolist() == [[3, 10]]


def test_maximum_of_negative_values_is_not_the_paddings_zero() -> None:
    hidden = clips([2, 5], padding=0.0)
    hidden[0, :2] = -1.0
    assert (Pooling("max", 6)(hidden, torch.tensor([2, 5]))[0] == -1).all()


def test_attention_is_the_weighted_mean_of_its_own_weights() -> None:
    torch.manual_seed(0)
    pooling = Pooling("attention", 6)
    hidden, lengths = clips([3, 7], padding=0.0), torch.tensor([3, 7])
    weights = pooling.weights(hidden, lengths)
    assert torch.allclose(weights.sum(1), torch.ones(2))
    assert (weights[0, 3:] == 0).all()
    assert (weights[0, :3] > 0).all()
    expected = torch.einsum("bt,bth->bh", weights, hidden)
    assert torch.allclose(pooling(hidden, lengths), expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 12),
    batch=st.integers(1, 3),
    scale=st.sampled_from([1.0, 100.0]),
    seed=st.integers(0, 9),
)
def test_step_equals_forward_over_the_prefix(kind: Kind, steps: int, batch: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    pooling = Pooling(kind, 6)
    if kind == "attention":
        with torch.no_grad():
            pooling.context.weight.mul_(scale)
    hidden = torch.randn(batch, steps, 6)
    state = None
    with torch.no_grad():
        for t in range(steps):
            before = state
            pooled, state = pooling.step(hidden[:, t], state)
            expected = pooling(hidden[:, : t + 1], torch.full((batch,), t + 1))
            assert torch.allclose(pooled, expected, atol=1e-5)
            again, _ = pooling.step(hidden[:, t], before)  # the state handed in is not changed
            assert torch.equal(pooled, again)


@pytest.mark.parametrize("kind", ["mean", "attention"])
def test_a_long_stream_stays_exact(kind: Kind) -> None:
    torch.manual_seed(0)
    pooling = Pooling(kind, 4)
    hidden = torch.randn(1, 5000, 4) + 10
    state = None
    with torch.no_grad():
        for t in range(5000):
            pooled, state = pooling.step(hidden[:, t], state)
        exact = pooling.double()(hidden.double(), torch.tensor([5000]))
    assert torch.allclose(pooled.double(), exact, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_does_not_stream(kind: Kind) -> None:
    with pytest.raises(ConfigError, match="bidirectional"):
        Pooling(kind, 6, bidirectional=True).step(torch.zeros(1, 6))


def test_masked_softmax_is_softmax_over_the_valid() -> None:
    scores = torch.randn(3, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0]], dtype=torch.bool)
    found = masked_softmax(scores, mask)
    assert torch.allclose(found[0], scores[0].softmax(0))
    assert found[1].tolist() == [1, 0, 0, 0, 0]
    assert torch.allclose(found[2, [1, 3]], scores[2, [1, 3]].softmax(0))
    assert masked_softmax(scores.bfloat16(), mask).dtype == torch.float32
