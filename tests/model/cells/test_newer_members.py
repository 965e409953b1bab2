"""min_gru, min_lstm, conv_lstm, slstm and mlstm keep the contract of a layer (pipeline/model/cells/__init__.py)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.config import RecurrentConfig
from pipeline.model.cells.conv import ConvLSTMLayer
from pipeline.model.cells.minimal import MinGRULayer, MinLSTMLayer
from pipeline.model.cells.mlstm import MLSTMLayer
from pipeline.model.cells.slstm import SLSTMLayer

LAYERS = {
    "min_gru": MinGRULayer,
    "min_lstm": MinLSTMLayer,
    "conv_lstm": ConvLSTMLayer,
    "slstm": SLSTMLayer,
    "mlstm": MLSTMLayer,
}
kinds = pytest.mark.parametrize("kind", LAYERS)
GATES = {
    "min_gru": {"forget", "input", "cell"},
    "min_lstm": {"forget", "input", "cell"},
    "conv_lstm": {"input", "forget", "cell", "output"},
    "slstm": {"input", "forget", "cell", "output"},
    "mlstm": {"forget", "output"},
}


def make(kind: str, size: int = 5, hidden: int = 6, dtype: torch.dtype = torch.float32, **options: object) -> nn.Module:
    """A layer with weights large enough that every gate moves; conv_lstm reads `size` channels on a 2 x 2 grid."""
    config = RecurrentConfig(kind=kind, hidden=hidden, **options)  # type: ignore[arg-type]
    layer = ConvLSTMLayer(4 * size, config, grid=2) if kind == "conv_lstm" else LAYERS[kind](size, config)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return layer.to(dtype)


def width(kind: str, size: int) -> int:
    return 4 * size if kind == "conv_lstm" else size


def padded(kind: str, lengths: list[int], steps: int, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(len(lengths), steps, width(kind, size), dtype=dtype)
    for row, length in enumerate(lengths):
        x[row, length:] = 0
    return x


sizes = {
    "kind": st.sampled_from(sorted(LAYERS)),
    "size": st.integers(1, 6),
    "hidden": st.integers(1, 9),
    "seed": st.integers(0, 99),
}


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), extra=st.integers(0, 2), **sizes)
def test_padded_batch_equals_each_clip_alone(
    lengths: list[int], extra: int, kind: str, size: int, hidden: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = make(kind, size, hidden)
    x = padded(kind, lengths, max(lengths) + extra, size)
    with torch.no_grad():
        together, state = layer(x, torch.tensor(lengths), None)
        assert together.shape == (len(lengths), x.shape[1], layer.output_size)
        assert together.isfinite().all()
        for row, length in enumerate(lengths):
            alone, own = layer(x[row : row + 1, :length], torch.tensor([length]), None)
            torch.testing.assert_close(together[row, :length], alone[0], atol=1e-6, rtol=1e-5)
            for batched, single in zip(state, own, strict=True):
                torch.testing.assert_close(batched[row], single[0], atol=1e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 25), min_size=1, max_size=5),
    batch=st.integers(1, 3),
    double=st.booleans(),
    **sizes,
)
def test_whole_equals_chunks_equals_one_at_a_time(
    cuts: list[int], batch: int, double: bool, kind: str, size: int, hidden: int, seed: int
) -> None:
    torch.manual_seed(seed)
    dtype, tolerance = (torch.float64, 1e-10) if double else (torch.float32, 1e-6)
    if kind == "mlstm" and not double:
        tolerance = 1e-5  # a quotient of two sums, whose rounding grows where the divisor is small
    layer = make(kind, size, hidden, dtype)
    x = torch.randn(batch, sum(cuts), width(kind, size), dtype=dtype) * 0.5
    with torch.no_grad():
        whole, end = layer(x, torch.full((batch,), sum(cuts)), None)
        for parts in (x.split(cuts, 1), x.split(1, 1)):
            state, found = None, []
            for part in parts:
                hidden_part, state = layer(part, torch.full((batch,), part.shape[1]), state)
                found.append(hidden_part)
            torch.testing.assert_close(torch.cat(found, 1), whole, atol=tolerance, rtol=tolerance * 10)
            for one, other in zip(state, end, strict=True):
                torch.testing.assert_close(one, other, atol=tolerance * 10, rtol=tolerance * 10)


@kinds
def test_chunks_have_the_gradients_of_the_whole(kind: str) -> None:
    torch.manual_seed(0)
    layer = make(kind, dtype=torch.float64)
    x, lengths = padded(kind, [150, 70], 150, 5, torch.float64), torch.tensor([150, 70])
    weights = torch.randn(2, 150, layer.output_size, dtype=torch.float64)
    weights[1, 70:] = 0
    whole = torch.autograd.grad((layer(x, lengths, None)[0] * weights).sum(), tuple(layer.parameters()))
    first, state = layer(x[:, :70], torch.tensor([70, 70]), None)
    second, _ = layer(x[:, 70:], torch.tensor([80, 1]), state)
    pieces = torch.autograd.grad((torch.cat([first, second], 1) * weights).sum(), tuple(layer.parameters()))
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@kinds
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    torch.manual_seed(0)
    layer = make(kind, size=1, hidden=2, dtype=torch.float64)
    lengths = torch.tensor([4, 1])
    x = padded(kind, [4, 1], 4, 1, torch.float64).requires_grad_()
    start = [part.detach() for part in layer(padded(kind, [2, 2], 2, 1, torch.float64), torch.tensor([2, 2]), None)[1]]
    fixed = start[-1:] if kind in ("slstm", "mlstm") else []  # the stabiliser is a constant
    free = [part.requires_grad_() for part in start[: len(start) - len(fixed)]]
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        state = (*values[: len(free)], *fixed)
        weights = dict(zip(names, values[len(free) :], strict=True))
        hidden, after = torch.func.functional_call(layer, weights, (x, lengths, state))
        valid = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).unsqueeze(-1)
        if not fixed:
            return hidden * valid, *after
        # what the states stand for: c and n are kept divided by exp(m), and their gradients are at a given m
        scale = after[-1].exp()
        return hidden * valid, *(y * scale.view(*scale.shape, *[1] * (y.ndim - scale.ndim)) for y in after[:-1][-2:])

    assert torch.autograd.gradcheck(run, (x, *free, *parameters), atol=1e-6)


@kinds
def test_the_order_of_the_batch_does_not_matter(kind: str) -> None:
    torch.manual_seed(0)
    layer = make(kind)
    lengths = [3, 7, 1, 5]
    x, order = padded(kind, lengths, 7, 5), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        hidden, state = layer(x, torch.tensor(lengths), None)
        turned, turned_state = layer(x[order], torch.tensor(lengths)[order], None)
    torch.testing.assert_close(turned, hidden[order], atol=1e-6, rtol=1e-6)
    for one, other in zip(turned_state, state, strict=True):
        torch.testing.assert_close(one, other[order], atol=1e-6, rtol=1e-6)


@kinds
@pytest.mark.parametrize("scale", [0.0, 50.0, 1000.0])
def test_extreme_inputs_over_many_steps_stay_finite(kind: str, scale: float) -> None:
    torch.manual_seed(0)
    layer = make(kind, size=2, hidden=4)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():  # hidden states must not depend on each other chaotically
            if name != "weight_hh":
                parameter.mul_(scale)
    steps = 2000 if kind != "conv_lstm" else 300
    x = torch.randn(2, steps, width(kind, 2)).sign().requires_grad_()
    hidden, state = layer(x, torch.tensor([steps, steps - 1]), None)
    hidden.abs().sum().backward()
    assert hidden.isfinite().all()
    assert all(part.isfinite().all() for part in state)
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in layer.parameters())


@kinds
def test_gates_are_given_by_name(kind: str) -> None:
    torch.manual_seed(0)
    layer = make(kind)
    x = padded(kind, [6, 3], 6, 5)
    _, state = layer(x, torch.tensor([6, 3]), None)
    gates = layer.gates(x, torch.tensor([6, 3]), state)
    assert set(gates) == GATES[kind]
    for name, values in gates.items():
        assert values.shape == (2, 6, layer.output_size) and not values.requires_grad
        if name != "cell":
            assert values.min() >= 0 and values.max() <= 1 + 1e-6 and values.std() > 0
    with torch.no_grad():  # the second half of a clip has the gates it has in the whole clip
        _, state = layer(x[:, :2], torch.tensor([2, 2]), None)
    late, whole = layer.gates(x[:, 2:], torch.tensor([4, 1]), state), layer.gates(x, torch.tensor([6, 3]), None)
    for name in gates:
        torch.testing.assert_close(late[name], whole[name][:, 2:], atol=1e-5, rtol=1e-5)


@kinds
@pytest.mark.parametrize("initialisation", ["orthogonal", "chrono", "default"])
def test_start_weights_depend_on_the_seed_alone_and_travel(kind: str, initialisation: str) -> None:
    config = RecurrentConfig(kind=kind, hidden=8, initialisation=initialisation, chrono_steps=50)  # type: ignore[arg-type]
    layers = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        layers.append(LAYERS[kind](7, config))
    x, lengths = torch.randn(2, 5, 7), torch.tensor([5, 2])
    first, same, other = (layer(x, lengths, None)[0] for layer in layers)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    layers[2].load_state_dict(layers[0].state_dict())
    assert torch.equal(layers[2](x, lengths, None)[0], first)
    assert torch.equal(copy.deepcopy(layers[0])(x, lengths, None)[0], first)


@kinds
def test_unusual_callers(kind: str) -> None:
    """Not contiguous, under inference mode, without a gradient for the weights, backwards under autocast."""
    torch.manual_seed(0)
    layer = make(kind)
    x, lengths = padded(kind, [6, 3], 6, 5), torch.tensor([6, 3])
    expected, _ = layer(x, lengths, None)
    strided = torch.stack([x, x], -1)[..., 0]
    torch.testing.assert_close(layer(strided, lengths, None)[0], expected, atol=1e-6, rtol=1e-6)
    turned = x.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(layer(turned, lengths, None)[0], expected, atol=1e-6, rtol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, lengths, None)[0], expected.detach(), atol=1e-6, rtol=1e-6)
    layer.requires_grad_(False)
    only = x.clone().requires_grad_()
    layer(only, lengths, None)[0].square().sum().backward()
    assert only.grad is not None and only.grad.abs().sum() > 0
    layer.requires_grad_(True)
    hidden, _ = layer(x, lengths, None)
    with torch.autocast("cpu", torch.bfloat16):
        hidden.square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())
