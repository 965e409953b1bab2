"""minGRU and minLSTM against the equations of Feng et al. (2024), and their start weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.config import RecurrentConfig
from pipeline.model.cells.minimal import MinGRULayer, MinLSTMLayer, min_lstm_shares


def min_gru(layer: MinGRULayer, x: Tensor, h: Tensor) -> Tensor:
    """Section 3.1 of the paper."""
    w_z, w_h = layer.weight_ih.chunk(2)
    b_z, b_h = layer.bias.chunk(2)
    states = []
    for t in range(x.shape[1]):
        z = torch.sigmoid(x[:, t] @ w_z.t() + b_z)
        h = (1 - z) * h + z * (x[:, t] @ w_h.t() + b_h)
        states.append(h)
    return torch.stack(states, 1)


def min_lstm(layer: MinLSTMLayer, x: Tensor, h: Tensor) -> Tensor:
    """Section 3.2 of the paper."""
    w_f, w_i, w_h = layer.weight_ih.chunk(3)
    b_f, b_i, b_h = layer.bias.chunk(3)
    states = []
    for t in range(x.shape[1]):
        f, i = torch.sigmoid(x[:, t] @ w_f.t() + b_f), torch.sigmoid(x[:, t] @ w_i.t() + b_i)
        h = f / (f + i) * h + i / (f + i) * (x[:, t] @ w_h.t() + b_h)
        states.append(h)
    return torch.stack(states, 1)


def make(kind: str, **options: object) -> MinGRULayer | MinLSTMLayer:
    config = RecurrentConfig(kind=kind, **options)  # type: ignore[arg-type]
    return (MinGRULayer if kind == "min_gru" else MinLSTMLayer)(4, config)


@pytest.mark.parametrize(("kind", "reference"), [("min_gru", min_gru), ("min_lstm", min_lstm)])
def test_outputs_and_gradients_are_those_of_the_equations(kind: str, reference: object) -> None:
    torch.manual_seed(0)
    layer = make(kind, hidden=5).double()
    x = torch.randn(3, 40, 4, dtype=torch.float64, requires_grad=True)
    start = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    hidden, (last,) = layer(x, torch.tensor([40, 40, 40]), (start,))
    expected = reference(layer, x, start)  # type: ignore[operator]
    torch.testing.assert_close(hidden, expected, atol=1e-10, rtol=1e-10)
    assert torch.equal(last, hidden[:, -1])
    inputs = (x, start, *layer.parameters())
    ours = torch.autograd.grad(hidden.sin().sum(), inputs)
    theirs = torch.autograd.grad(expected.sin().sum(), inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_normalised_gates_are_exact_far_out() -> None:
    values = torch.tensor([-1e4, -300.0, -60.0, -2.0, 0.0, 3.0, 40.0, 1e4], dtype=torch.float64)
    forget, take = (x.flatten() for x in torch.meshgrid(values, values, indexing="ij"))
    kept, taken = min_lstm_shares(torch.cat([forget, take]))
    difference = torch.nn.functional.logsigmoid(forget) - torch.nn.functional.logsigmoid(take)
    torch.testing.assert_close(kept, torch.sigmoid(difference), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(taken, torch.sigmoid(-difference), atol=1e-12, rtol=1e-9)
    single = min_lstm_shares(torch.cat([forget, take]).float())
    torch.testing.assert_close(single[0], kept.float(), atol=1e-6, rtol=1e-5)


def test_the_gates_start_as_open_as_configured() -> None:
    torch.manual_seed(0)
    forget_bias = {"kind": "min_gru", "hidden": 6, "forget_bias": 2.0}
    gru, lstm = make(**forget_bias), make(**forget_bias | {"kind": "min_lstm"})  # type: ignore[arg-type]
    silence = torch.zeros(1, 1, 4)
    gates = gru.gates(silence, torch.tensor([1]))
    assert torch.allclose(gates["forget"], torch.sigmoid(torch.tensor(2.0)).expand(1, 1, 6))
    assert torch.allclose(gates["forget"] + gates["input"], torch.ones(1, 1, 6))
    assert lstm.bias.tolist() == [2.0] * 6 + [0.0] * 12


@pytest.mark.parametrize("kind", ["min_gru", "min_lstm"])
def test_chrono_remembers_for_as_long_as_the_gap(kind: str) -> None:
    torch.manual_seed(0)
    layer = make(kind, hidden=500, initialisation="chrono", chrono_steps=100)
    forget = layer.gates(torch.zeros(1, 1, 4), torch.tensor([1]))["forget"].flatten()
    constants = 1 / (1 - forget)  # of a unit that forgets with sigmoid(b): 1 + exp(b)
    assert 2 <= constants.min() < 5 and 95 < constants.max() <= 100.01


@pytest.mark.parametrize("kind", ["min_gru", "min_lstm"])
def test_default_weights_are_as_pytorch_draws_them(kind: str) -> None:
    torch.manual_seed(0)
    layer = make(kind, hidden=100, initialisation="default", forget_bias=7.0)
    for parameter in layer.parameters():
        assert 0.08 < parameter.abs().max() <= 0.1
