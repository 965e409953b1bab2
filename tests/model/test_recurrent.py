"""The recurrence: state is a value, whole = chunks = one by one, start weights as they should be."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import RecurrentConfig
from pipeline.model.recurrent import Recurrent, valid_mask

Kind = Literal["none", "rnn", "gru", "lstm"]
KINDS: tuple[Kind, ...] = ("none", "rnn", "gru", "lstm")


def make(kind: Kind, size: int = 5, hidden: int = 6, layers: int = 2, both: bool = False) -> Recurrent:
    config = RecurrentConfig(kind=kind, hidden=hidden, layers=layers, bidirectional=both)
    return Recurrent(size, config).eval()


def tensors(state: object) -> list[torch.Tensor]:
    if state is None:
        return []
    return [state] if isinstance(state, torch.Tensor) else list(state)  # type: ignore[call-overload]


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    extra=st.integers(0, 2),
    size=st.integers(1, 9),
    hidden=st.integers(1, 8),
    layers=st.integers(1, 3),
    both=st.booleans(),
    seed=st.integers(0, 9),
)
def test_padded_batch_equals_each_clip_alone(
    kind: Kind,
    lengths: list[int],
    extra: int,
    size: int,
    hidden: int,
    layers: int,
    both: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    net = make(kind, size, hidden, layers, both)
    steps = max(lengths) + extra
    x = torch.randn(len(lengths), steps, size)
    x[~valid_mask(torch.tensor(lengths), steps, x.device)] = torch.nan  # read by nobody
    with torch.no_grad():
        together, state = net(x, torch.tensor(lengths))
        assert together.shape == (len(lengths), steps, net.output_size)
        for row, length in enumerate(lengths):
            alone, own = net(x[row : row + 1, :length], torch.tensor([length]))
            assert torch.allclose(together[row, :length], alone[0], atol=1e-6)
            assert (together[row, length:] == 0).all()
            for batched, single in zip(tensors(state), tensors(own), strict=True):
                assert torch.allclose(batched[:, row], single[:, 0], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    batch=st.integers(1, 3),
    layers=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_whole_equals_chunks(kind: Kind, cuts: list[int], batch: int, layers: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = make(kind, layers=layers)
    x = torch.randn(batch, sum(cuts), 5)
    with torch.no_grad():
        whole, end = net(x, torch.full((batch,), sum(cuts)))
        state, parts = None, []
        for part in x.split(cuts, dim=1):
            hidden, state = net(part, torch.full((batch,), part.shape[1]), state)
            parts.append(hidden)
    assert torch.allclose(whole, torch.cat(parts, 1), atol=1e-6)
    for one, other in zip(tensors(end), tensors(state), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_one_step_at_a_time_over_a_long_clip(kind: Kind) -> None:
    torch.manual_seed(0)
    net = make(kind, size=16, hidden=32)
    x = torch.randn(2, 200, 16)
    with torch.no_grad():
        whole, _ = net(x, torch.tensor([200, 200]))
        state, steps = None, []
        for t in range(200):
            hidden, state = net(x[:, t : t + 1], torch.tensor([1, 1]), state)
            steps.append(hidden)
    assert torch.allclose(whole, torch.cat(steps, 1), atol=1e-6)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_state_of_clips_of_different_lengths_goes_on_where_each_ended(kind: Kind) -> None:
    torch.manual_seed(0)
    net = make(kind)
    first, second = torch.randn(2, 4, 5), torch.randn(2, 3, 5)
    with torch.no_grad():
        _, state = net(first, torch.tensor([2, 4]))
        after, _ = net(second, torch.tensor([3, 3]), state)
        whole, _ = net(torch.cat([first[:1, :2], second[:1]], 1), torch.tensor([5]))
    assert torch.allclose(after[0], whole[0, 2:], atol=1e-6)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("both", [False, True])
def test_start_weights(kind: Kind, both: bool) -> None:
    torch.manual_seed(0)
    size = 24
    config = RecurrentConfig(kind=kind, hidden=size, layers=2, bidirectional=both, forget_bias=1.5)
    net = Recurrent(10, config).net
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    assert len(list(net.parameters())) == 4 * 2 * (2 if both else 1)
    for name, value in net.named_parameters():
        if name.startswith("weight_hh"):
            for gate in value.view(gates, size, size):
                assert torch.allclose(gate @ gate.T, torch.eye(size), atol=1e-5)
        elif name.startswith("weight_ih"):
            bound = (6 / (size + value.shape[1])) ** 0.5
            assert 0.8 * bound < value.abs().max() <= bound
        else:
            expected = torch.zeros(gates * size)
            if kind == "lstm" and name.startswith("bias_ih"):
                expected[size : 2 * size] = 1.5
            assert torch.equal(value, expected)


def test_the_forget_gate_is_the_second() -> None:
    net = make("lstm", size=3, hidden=4, layers=1)
    weights = dict(net.net.named_parameters())
    with torch.no_grad():
        for parameter in weights.values():
            parameter.zero_()
        weights["bias_ih_l0"][4:8] = 30.0  # only the forget gate is open: the cell must keep its content
    state = (torch.zeros(1, 1, 4), torch.randn(1, 1, 4))
    with torch.no_grad():
        _, after = net(torch.randn(1, 5, 3), torch.tensor([5]), state)
    assert isinstance(after, tuple)
    assert torch.allclose(after[1], state[1], atol=1e-5)


def test_sizes_and_streamability() -> None:
    assert make("none", size=7).output_size == 7
    assert make("lstm", hidden=6).output_size == 6
    assert make("lstm", hidden=6, both=True).output_size == 12
    assert make("gru").streamable
    assert not make("gru", both=True).streamable
    assert make("none", both=True).streamable  # nothing reads backwards
    assert not list(make("none").parameters())


def test_dropout_acts_between_layers_in_training_only() -> None:
    torch.manual_seed(0)
    net = Recurrent(5, RecurrentConfig(kind="lstm", hidden=6, layers=2, dropout=0.5))
    x, lengths = torch.randn(2, 4, 5), torch.tensor([4, 2])
    assert not torch.equal(net.train()(x, lengths)[0], net(x, lengths)[0])
    assert torch.equal(net.eval()(x, lengths)[0], net(x, lengths)[0])
