"""mLSTM against the equations of Beck et al. (2024), step by step and without the stabiliser."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.config import RecurrentConfig
from pipeline.model.cells.mlstm import CHUNK, MLSTMLayer


def equations(layer: MLSTMLayer, x: Tensor, memory: Tensor, normaliser: Tensor) -> Tensor:
    """C (B, heads, size, size) and n (B, heads, size) at their true scale; one step after the other."""
    heads, size = layer.heads, layer.output_size // layer.heads
    states = []
    for t in range(x.shape[1]):
        q, k, v, o = (x[:, t] @ layer.weight_ih.t() + layer.bias).chunk(4, -1)
        q, k, v = (y.view(-1, heads, size) for y in (q, k, v))
        i, f = (x[:, t] @ layer.weight_gates.t() + layer.bias_gates).chunk(2, -1)
        i, f = torch.exp(i).unsqueeze(-1), torch.sigmoid(f).unsqueeze(-1)
        k = k / math.sqrt(size)
        memory = f.unsqueeze(-1) * memory + i.unsqueeze(-1) * v.unsqueeze(-1) * k.unsqueeze(-2)
        normaliser = f * normaliser + i * k
        weight = (normaliser * q).sum(-1, keepdim=True).abs().clamp(min=1)
        read = (memory @ q.unsqueeze(-1)).squeeze(-1) / weight
        states.append(torch.sigmoid(o) * read.flatten(1))
    return torch.stack(states, 1)


def make(hidden: int = 8, **options: object) -> MLSTMLayer:
    return MLSTMLayer(5, RecurrentConfig(kind="mlstm", hidden=hidden, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, CHUNK, 2 * CHUNK + 3])
def test_outputs_and_gradients_are_those_of_the_equations(steps: int) -> None:
    torch.manual_seed(0)
    layer = make().double()
    with torch.no_grad():
        for parameter in (layer.weight_gates, layer.bias_gates, layer.bias):
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(2, steps, 5, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    normaliser = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([steps, steps])
    zeros = torch.zeros(2, 4, dtype=torch.float64)
    for start, state in (((memory * 0, normaliser * 0), None), ((memory, normaliser), (memory, normaliser, zeros))):
        hidden, _ = layer(x, lengths, state)
        expected = equations(layer, x, *start)
        torch.testing.assert_close(hidden, expected, atol=1e-10, rtol=1e-10)
        inputs = (x, *layer.parameters(), *((memory, normaliser) if state else ()))
        ours = torch.autograd.grad(hidden.sin().sum(), inputs)
        theirs = torch.autograd.grad(expected.sin().sum(), inputs)
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("extra", [0, 1, CHUNK, CHUNK + 5])
def test_padding_changes_no_state(extra: int) -> None:
    torch.manual_seed(0)
    layer = make().double()
    x = torch.randn(1, 10, 5, dtype=torch.float64)
    longer = torch.cat([x, torch.zeros(1, extra, 5, dtype=torch.float64)], 1)
    _, expected = layer(x, torch.tensor([10]), None)
    _, found = layer(longer, torch.tensor([10]), None)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_a_value_is_read_back_under_its_key() -> None:
    """Two values stored under orthogonal keys, 300 steps ago, both still there."""
    layer = make(hidden=3)  # one head of 3
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        query, key, value, output = layer.weight_ih.view(4, 3, 5)
        key[0, 0] = key[1, 1] = query[0, 2] = query[1, 3] = math.sqrt(3)
        value[2, 0], value[2, 1] = 0.7, -0.4
        layer.bias[9:] = 20.0  # shows everything
        layer.bias_gates[1] = 20.0  # forgets nothing
        output.zero_()
    x = torch.zeros(1, 303, 5)
    x[0, 0, 0] = x[0, 1, 1] = x[0, 301, 2] = x[0, 302, 3] = 1.0
    hidden, _ = layer(x, torch.tensor([303]), None)
    # |n . q| is sqrt(3), and so is the weight of the value that is read: it comes back as it was stored
    torch.testing.assert_close(hidden[0, 301:, 2], torch.tensor([0.7, -0.4]), atol=1e-4, rtol=1e-4)
    assert not hidden[0, 2:301].any()


def test_memory_is_kept_while_the_gates_are_shut_and_its_weight_underflows() -> None:
    layer = make(hidden=4).double()
    with torch.no_grad():
        layer.bias_gates[: layer.heads] = -200.0
    x = torch.randn(1, 100, 5, dtype=torch.float64, requires_grad=True)
    hidden, _ = layer(x, torch.tensor([100]), None)
    hidden.sum().backward()
    assert hidden.abs().max() < 1e-30  # next to nothing was stored, and next to nothing is read
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize(("hidden", "heads"), [(1, 1), (6, 2), (8, 4), (9, 1), (128, 4)])
def test_heads_divide_the_hidden_size(hidden: int, heads: int) -> None:
    assert make(hidden=hidden).heads == heads


def test_start_weights() -> None:
    torch.manual_seed(0)
    layer = make()
    assert layer.bias_gates.tolist() == [0.0] * 4 + [3.0, 4.0, 5.0, 6.0]
    assert not layer.weight_gates.any() and not layer.bias.any()
    chrono = make(hidden=8, initialisation="chrono", chrono_steps=50).bias_gates[4:]
    assert chrono.min() >= 0 and chrono.max() <= math.log(49)
