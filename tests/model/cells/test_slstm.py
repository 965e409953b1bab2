"""sLSTM against the equations of Beck et al. (2024), written without the stabiliser."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import RecurrentConfig
from pipeline.model.cells.regularise import drop
from pipeline.model.cells.slstm import SLSTMLayer
from pipeline.model.cells.slstm_scan import log_sigmoid


def equations(layer: SLSTMLayer, x: Tensor, h: Tensor, c: Tensor, n: Tensor) -> Tensor:
    states = []
    for t in range(x.shape[1]):
        i, f, g, o = (x[:, t] @ layer.weight_ih.t() + h @ layer.weight_hh.t() + layer.bias).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(g)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        states.append(h)
    return torch.stack(states, 1)


def make(hidden: int = 5, **options: object) -> SLSTMLayer:
    return SLSTMLayer(4, RecurrentConfig(kind="slstm", hidden=hidden, **options))  # type: ignore[arg-type]


def test_outputs_and_gradients_are_those_of_the_equations() -> None:
    torch.manual_seed(0)
    layer = make().double()
    x = torch.randn(3, 30, 4, dtype=torch.float64, requires_grad=True)
    h, c = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    n = torch.rand(3, 5, dtype=torch.float64).add(0.5).requires_grad_()
    lengths = torch.tensor([30, 30, 30])
    for start, state in (((h * 0, c * 0, n * 0), None), ((h, c, n), (h, c, n, torch.zeros_like(c)))):
        hidden, _ = layer(x, lengths, state)
        expected = equations(layer, x, *start)
        torch.testing.assert_close(hidden, expected, atol=1e-10, rtol=1e-10)
        inputs = (x, *layer.parameters(), *((h, c, n) if state else ()))
        ours = torch.autograd.grad(hidden.sin().sum(), inputs)
        theirs = torch.autograd.grad(expected.sin().sum(), inputs)
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_the_loss_may_be_of_the_state_alone() -> None:
    torch.manual_seed(0)
    layer = make().double()
    _, (_, c, n, m) = layer(torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor([3, 1]), None)
    assert not m.requires_grad
    (c / n).sum().backward()
    assert layer.weight_ih.grad is not None and layer.weight_ih.grad.abs().sum() > 0


def test_the_scale_of_the_input_gate_cancels() -> None:
    torch.manual_seed(0)
    layer = make().double()
    x, lengths = torch.randn(2, 50, 4, dtype=torch.float64), torch.tensor([50, 50])
    before, _ = layer(x, lengths, None)
    with torch.no_grad():
        layer.bias[:5] += 300  # exp(300) would not even be a float32
    after, (_, _, normaliser, _) = layer(x, lengths, None)
    torch.testing.assert_close(after, before, atol=1e-10, rtol=1e-10)
    assert normaliser.min() >= 1


def test_a_later_input_can_outweigh_all_before_it() -> None:
    layer = make(hidden=1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias[1], layer.bias[3] = 20.0, 20.0  # forgets nothing, shows everything
        layer.weight_ih[2, 0] = 10.0  # the candidate is the sign of the first feature
        layer.weight_ih[0, 1] = 1.0  # the second says how much it counts
    x = torch.zeros(1, 101, 4)
    x[0, :100, 0], x[0, 100, 0], x[0, 100, 1] = 1.0, -1.0, 12.0
    hidden, _ = layer(x, torch.tensor([101]), None)
    assert hidden[0, 99, 0] > 0.99 and hidden[0, 100, 0] < -0.99


def test_weight_dropout_holds_for_a_whole_clip_and_in_training_alone() -> None:
    torch.manual_seed(0)
    layer = make(weight_dropout=0.5)
    x, lengths = torch.randn(1, 2, 4), torch.tensor([2])
    with torch.no_grad():
        kept = layer.eval()(x, lengths, None)[0]
        assert torch.equal(kept, layer(x, lengths, None)[0])
        torch.manual_seed(1)
        dropped = layer.train()(x, lengths, None)[0]
        torch.manual_seed(1)
        mask = drop(torch.ones_like(layer.weight_hh), 0.5)
        layer.weight_hh.mul_(mask)
        torch.testing.assert_close(layer.eval()(x, lengths, None)[0], dropped)
    assert not torch.equal(kept, dropped)


def test_start_weights() -> None:
    torch.manual_seed(0)
    layer = make(hidden=7)
    assert torch.allclose(layer.bias[7:14], torch.linspace(3, 6, 7))
    assert not layer.bias[:7].any() and not layer.bias[14:].any()
    for gate in layer.weight_hh.detach().split(7):
        assert torch.allclose(gate @ gate.t(), torch.eye(7), atol=1e-5)
    chrono = make(hidden=200, initialisation="chrono", chrono_steps=50).bias[200:400]
    assert chrono.min() >= 0 and 3.8 < chrono.max() <= 3.9  # log 49


def test_log_sigmoid_is_that_of_pytorch() -> None:
    x = torch.linspace(-200, 200, 999, dtype=torch.float64)
    torch.testing.assert_close(log_sigmoid(x), F.logsigmoid(x), atol=1e-14, rtol=1e-12)
    torch.testing.assert_close(log_sigmoid(x.float()), F.logsigmoid(x.float()), atol=1e-7, rtol=1e-6)
